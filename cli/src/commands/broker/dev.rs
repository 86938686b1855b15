//! `kelda dev`.

use std::net::SocketAddr;

use clap::Args;
use kelda_server::config::Config;

use super::{flags::Flags, run::run};
use crate::{failure::Failure, output::write_stdout};

/// Run a broker to try things with: like serve, and says what to try
#[derive(Debug, Args)]
pub(crate) struct Dev {
    #[command(flatten)]
    flags: Flags,
}

impl Dev {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.flags.load(&Config::default())?;
        let data = data(&config);
        run(config, move |node| {
            // Without a reader of the greeting the node serves all the same.
            let _ = write_stdout(greeting(node.address(), node.cluster_id(), &data).as_bytes());
        })
    }
}

fn data(config: &Config) -> String {
    if config.ephemeral {
        return "in memory, gone when this ends".to_owned();
    }
    config.data_dir.display().to_string()
}

fn greeting(address: SocketAddr, cluster: &str, data: &str) -> String {
    // Clients find the default address by themselves.
    let server = if address.to_string() == "127.0.0.1:8080" {
        String::new()
    } else {
        format!(" --server {address}")
    };
    format!(
        "\
ready
  gRPC, gRPC-Web  {address}
  HTTP            http://{address}/health  /cluster/status  /metrics
  data            {data}
  cluster         {cluster}

Try, in another terminal:
  kelda topic create demo{server} && echo hello | kelda produce demo{server}
  kelda consume demo{server} --follow
  grpcurl -plaintext -d '{{\"topic\":\"demo\"}}' {address} kelda.v1.ConsumeService/Consume
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_name_the_server_only_where_it_is_not_the_default() {
        let text = greeting(SocketAddr::from(([127, 0, 0, 1], 8080)), "c", "d");
        assert!(
            text.contains("kelda produce demo\n") && text.starts_with("ready\n"),
            "{text}"
        );
        let text = greeting(SocketAddr::from(([127, 0, 0, 1], 9000)), "c", "d");
        assert!(
            text.contains("kelda consume demo --server 127.0.0.1:9000 --follow\n"),
            "{text}"
        );
    }
}
