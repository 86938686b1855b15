//! A network of its own for each node, joined by a bridge that this process is on too: what nodes say to each other
//! can be cut by pairs and in one direction, UDP as well as TCP, without their noticing anything but silence.
//!
//! Needs Linux and the right to make networks, which root has.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::Ipv4Addr,
    process::{Command, Output},
};

use super::ports::lock;

/// Networks of tests at a time.
const NETWORKS: u8 = 200;

/// Hosts of a network from this number on are nodes.
const FIRST_HOST: u8 = 11;

/// An address of the link layer that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// How long a connection may take that is only a few hops of this machine's memory away.
const CONNECT_SECONDS: &str = "0.5";

/// A network with a place for each node.
pub(crate) struct Network {
    number: u8,
    places: usize,
    /// Packets from the first to the second are lost.
    cuts: BTreeSet<(usize, usize)>,
    _lease: File,
}

impl Network {
    /// Makes a network, or says that it is skipped where this user may not.
    pub(crate) fn create(places: usize) -> Option<Self> {
        let (number, lease) = (0..NETWORKS)
            .find_map(|number| Some((number, lock(&format!("network-{number}"))?)))
            .expect("fewer tests than networks");
        let network = Self {
            number,
            places,
            cuts: BTreeSet::new(),
            _lease: lease,
        };
        // A test that was killed may have left something.
        network.remove();
        let bridge = network.bridge();
        let made = run(&format!("link add {bridge} type bridge"));
        if !made.is_ok_and(|output| output.status.success()) {
            println!("skipped: this user can not make networks");
            return None;
        }
        ip(&format!("address add {}/24 dev {bridge}", network.host(1)));
        ip(&format!("link set {bridge} up"));
        for at in 0..places {
            let space = network.space(at);
            let (link, address) = (network.link(at), network.address(at));
            ip(&format!("netns add {space}"));
            ip(&format!(
                "link add {link} type veth peer name eth0 netns {space}"
            ));
            ip(&format!("link set {link} master {bridge} up"));
            ip(&format!("-n {space} address add {address}/24 dev eth0"));
            ip(&format!("-n {space} link set eth0 up"));
            ip(&format!("-n {space} link set lo up"));
        }
        Some(network)
    }

    /// The address of a place.
    pub(crate) fn address(&self, at: usize) -> Ipv4Addr {
        let host = u8::try_from(at).expect("few places");
        self.host(FIRST_HOST + host)
    }

    /// The name of the network namespace of a place.
    pub(crate) fn space(&self, at: usize) -> String {
        format!("kelda-test-{}-{at}", self.number)
    }

    /// Loses all packets from one place to another.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let (space, address) = (self.space(from), self.address(to));
        let entry = format!("{address} lladdr {NOBODY} nud permanent dev eth0");
        ip(&format!("-n {space} neighbour replace {entry}"));
        self.cuts.insert((from, to));
    }

    /// Loses all packets between these places and all others.
    pub(crate) fn isolate(&mut self, places: &[usize]) {
        for place in places {
            for other in (0..self.places).filter(|other| !places.contains(other)) {
                self.cut(*place, other);
                self.cut(other, *place);
            }
        }
    }

    /// Whether a connection is made from one place to a port of another.
    pub(crate) fn reaches(&self, from: usize, to: usize, port: u16) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{}/{port}", self.address(to));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(from)]);
        command.args(["timeout", CONNECT_SECONDS, "bash", "-c", &connect]);
        let output = command.output().expect("it ran before");
        output.status.success()
    }

    /// Loses nothing any more.
    pub(crate) fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            let (space, address) = (self.space(from), self.address(to));
            ip(&format!("-n {space} neighbour delete {address} dev eth0"));
        }
    }

    fn host(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, host)
    }

    fn bridge(&self) -> String {
        format!("kelda-{}", self.number)
    }

    fn link(&self, at: usize) -> String {
        format!("kelda-{}-{at}", self.number)
    }

    /// Removes what there is, of this or an earlier network of this number.
    fn remove(&self) {
        let mine = format!("kelda-test-{}-", self.number);
        let spaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        for space in spaces.map(|space| space.file_name().to_string_lossy().into_owned()) {
            if let Some(at) = space.strip_prefix(&mine) {
                // Links go with their namespace, but later.
                let _ = run(&format!("link delete {}-{at}", self.bridge()));
                let _ = run(&format!("netns delete {space}"));
            }
        }
        let _ = run(&format!("link delete {}", self.bridge()));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn run(arguments: &str) -> std::io::Result<Output> {
    Command::new("ip").args(arguments.split(' ')).output()
}

/// Runs a command that works if making the network did.
fn ip(arguments: &str) {
    let output = run(arguments).expect("it ran before");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}
