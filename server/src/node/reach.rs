//! Where others reach this node, if `--address` stands for all addresses of the machine, as it does in containers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::net::{UdpSocket, lookup_host};

use crate::config::Config;

/// How long a name server may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Somewhere else: these are reserved for documentation, and nothing is sent.
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The address to tell the others: the one that this machine reaches the first seed from, or anything else.
pub(super) async fn address(config: &Config) -> IpAddr {
    let bind = config.address;
    if !bind.is_unspecified() || config.cluster_port == 0 {
        return bind;
    }
    let mut targets = Vec::new();
    if let Some(seed) = config.seeds.first()
        && let Ok(Ok(found)) = tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host(seed)).await
    {
        targets.extend(found);
    }
    targets.extend(ELSEWHERE.map(|ip| SocketAddr::new(ip, 9)));
    for target in targets {
        if let Some(ip) = source(bind, target).await {
            tracing::info!(address = %ip, "others reach this node here: see --address");
            return ip;
        }
    }
    // There is no network but the machine's own.
    match bind {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// The address that packets to `target` would leave from.
async fn source(bind: IpAddr, target: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((bind, 0)).await.ok()?;
    socket.connect(target).await.ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_its_own_is_told_as_it_is() {
        let ip = IpAddr::from([127, 0, 0, 7]);
        let config = Config {
            address: ip,
            ..Config::of_cluster()
        };
        assert_eq!(address(&config).await, ip);
    }

    #[tokio::test]
    async fn all_addresses_become_the_one_that_leads_to_the_seed() {
        let config = Config {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            seeds: vec!["127.0.0.1:7946".to_owned()],
            ..Config::of_cluster()
        };
        assert!(address(&config).await.is_loopback());
        let config = Config {
            seeds: Vec::new(),
            ..config
        };
        assert!(!address(&config).await.is_unspecified());
    }
}
