//! `kelda dev`.

use std::net::SocketAddr;

use clap::{Args, value_parser};
use kelda_server::{config::Config, node::Node};

use super::{flags::Flags, run::run};
use crate::{
    failure::{Exit, Failure},
    output::write_stdout,
};

/// Where clients look by themselves.
const DEFAULT_SERVER: &str = "127.0.0.1:8080";

/// Run a broker to try things with: like serve, and says what to try
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Nodes to run in this process, as a cluster: on --port and --cluster-port and those behind them, with directories of
    /// their own below --data-dir
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=9))]
    nodes: u16,
    #[command(flatten)]
    flags: Flags,
}

impl Dev {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (data, configs) = if self.nodes == 1 {
            let config = self.flags.load(&Config::default())?;
            check_alone(&config)?;
            (data(&config), vec![config])
        } else {
            let config = self.flags.load(&Config::of_cluster())?;
            (data(&config), cluster(&config, self.nodes)?)
        };
        run(configs, move |nodes| {
            let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
            let cluster = nodes.first().map_or("", Node::cluster_id);
            // Without a reader of the greeting the nodes serve all the same.
            let _ = write_stdout(greeting(&addresses, cluster, &data).as_bytes());
        })
    }
}

/// Checks that the directory of one node is not the one above those of several.
fn check_alone(config: &Config) -> Result<(), Failure> {
    let directory = &config.data_dir;
    if config.ephemeral || !directory.join(name(1)).is_dir() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} has the nodes of a cluster: give --nodes as before, or another --data-dir",
        directory.display()
    )))
}

fn name(number: u16) -> String {
    format!("node{number}")
}

/// The nodes of a cluster that is like `config`: all name each other, so that they found it together.
fn cluster(config: &Config, count: u16) -> Result<Vec<Config>, Failure> {
    let refuse = |what: &str| Failure::new(Exit::Usage, format!("configuration: {what}"));
    if !config.seeds.is_empty() || config.bootstrap_expect > 0 {
        return Err(refuse(
            "--nodes makes its own cluster: leave out --seeds and --bootstrap-expect, or --nodes",
        ));
    }
    if config.cluster_port == 0 {
        return Err(refuse("--nodes needs --cluster-port, which is 0"));
    }
    let behind = |port: u16, number: u16| {
        let next = port.checked_add(number);
        next.ok_or_else(|| refuse("--port and --cluster-port leave no room for --nodes"))
    };
    let mut cluster_ports = Vec::new();
    for number in 0..count {
        cluster_ports.push(behind(config.cluster_port, number)?);
    }
    let seed = |port: &u16| SocketAddr::new(config.address, *port).to_string();
    let seeds: Vec<String> = cluster_ports.iter().map(seed).collect();
    let mut nodes = Vec::new();
    for (number, cluster_port) in (0..).zip(cluster_ports) {
        let name = name(number + 1);
        let node = Config {
            port: match config.port {
                0 => 0,
                port => behind(port, number)?,
            },
            cluster_port,
            seeds: seeds.clone(),
            bootstrap_expect: usize::from(count),
            data_dir: config.data_dir.join(&name),
            node_id: name,
            ..config.clone()
        };
        node.validate()?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn data(config: &Config) -> String {
    if config.ephemeral {
        return "in memory, gone when this ends".to_owned();
    }
    config.data_dir.display().to_string()
}

fn greeting(addresses: &[SocketAddr], cluster: &str, data: &str) -> String {
    let list = |separator: &str| {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        texts.join(separator)
    };
    let (all, first) = (list(","), addresses.first().map(ToString::to_string));
    let first = first.unwrap_or_default();
    let server = if all == DEFAULT_SERVER {
        String::new()
    } else {
        format!(" --server {all}")
    };
    // Every node has all of it, and any two go on without the third.
    let copies = match addresses.len() {
        1 => String::new(),
        count => format!(" --partitions {count} --replication-factor {count}"),
    };
    format!(
        "\
ready
  gRPC, gRPC-Web  {}
  HTTP            http://{first}/health  /cluster/status  /metrics
  data            {data}
  cluster         {cluster}

Try, in another terminal:
  kelda topic create demo{copies}{server} && echo hello | kelda produce demo{server}
  kelda consume demo{server} --follow
  grpcurl -plaintext -d '{{\"topic\":\"demo\"}}' {first} kelda.v1.ConsumeService/Consume
",
        list("  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_commands_name_the_server_only_where_it_is_not_the_default() {
        let text = greeting(&[at(8080)], "c", "d");
        assert!(
            text.contains("kelda produce demo\n") && text.starts_with("ready\n"),
            "{text}"
        );
        let text = greeting(&[at(9000)], "c", "d");
        assert!(
            text.contains("kelda consume demo --server 127.0.0.1:9000 --follow\n"),
            "{text}"
        );
        let text = greeting(&[at(8080), at(8081)], "c", "d");
        assert!(
            text.contains("--replication-factor 2 --server 127.0.0.1:8080,127.0.0.1:8081 "),
            "{text}"
        );
    }

    #[test]
    fn nodes_of_one_process_have_names_ports_and_directories_of_their_own() {
        let base = Config::of_cluster();
        let nodes = cluster(&base, 3).expect("a cluster");
        let of = |node: &Config| {
            let directory = node.data_dir.display().to_string();
            (node.port, node.cluster_port, directory)
        };
        let nodes: Vec<_> = nodes.iter().map(of).collect();
        let expected = [(8080, 7946, 1), (8081, 7947, 2), (8082, 7948, 3)];
        let expected = expected.map(|(port, cluster, number)| {
            let directory = format!("kelda-data/node{number}");
            (port, cluster, directory)
        });
        assert_eq!(nodes, expected);
        for broken in [
            Config {
                cluster_port: 0,
                ..base.clone()
            },
            Config {
                port: 65_534,
                ..base.clone()
            },
            Config {
                seeds: vec!["a:1".to_owned()],
                ..base
            },
        ] {
            assert!(cluster(&broken, 3).is_err(), "{broken:?}");
        }
    }
}
