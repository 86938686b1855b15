//! Who this node is: as its data directory says, as the founder of a cluster, or as the cluster says that it joins.

use std::time::Duration;

use kelda_proto::internal::v1::{
    CatalogCommand, CatalogNode, JoinRequest, JoinResponse,
    catalog_command::{Command, FoundCluster, RegisterNode},
};

use super::{StartError, bootstrap::Bootstrap, gossip::Gossip};
use crate::{
    config::Config,
    consensus::{CatalogGroup, ChangeError},
    machine::catalog::Node,
    peers,
    storage::{self, Marker, Storage},
    telemetry::clock,
    types::{CATALOG_GROUP, NodeId},
};

/// The node that founds a cluster.
const FOUNDER: NodeId = NodeId(1);
/// How long a seed may take to answer.
const SEED_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the seeds are asked again; it doubles.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(200);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: String,
    pub(super) node: NodeId,
}

impl Identity {
    /// Whether others have founded the cluster.
    pub(super) fn has_joined(&self) -> bool {
        self.node != FOUNDER
    }
}

/// Checks that the data directory is this node's, as far as it says.
pub(super) fn claim(config: &Config) -> Result<Option<Marker>, StartError> {
    if config.ephemeral {
        return Ok(None);
    }
    let Some(marker) = storage::read_marker(&config.data_dir)? else {
        return Ok(None);
    };
    let path = || config.data_dir.display().to_string();
    if marker.node_name != config.node_id {
        return Err(StartError::OtherNode {
            path: path(),
            owner: marker.node_name,
        });
    }
    if config
        .cluster_id
        .as_ref()
        .is_some_and(|wanted| *wanted != marker.cluster_id)
    {
        return Err(StartError::OtherCluster {
            path: path(),
            cluster: marker.cluster_id,
        });
    }
    Ok(Some(marker))
}

/// Checks that a directory without a marker has no catalog: a marker is written before there is one, so somebody has
/// taken it away, and a new one would give the data to another cluster.
pub(super) async fn check_unclaimed(config: &Config, storage: &Storage) -> Result<(), StartError> {
    let storage = storage.clone();
    let groups = tokio::task::spawn_blocking(move || storage.groups()).await;
    let groups = groups.map_err(|error| failed(&error))?;
    if groups
        .map_err(|error| failed(&error))?
        .contains(&CATALOG_GROUP)
    {
        let path = config.data_dir.display().to_string();
        return Err(StartError::NoMarker { path });
    }
    Ok(())
}

/// Finds out who this node is, and writes it into the data directory. With seeds it asks until one answers.
pub(super) async fn find(
    config: &Config,
    marker: Option<Marker>,
    this: &RegisterNode,
    gossip: &Gossip,
) -> Result<Identity, StartError> {
    if let Some(marker) = marker {
        // One that died before it could, or its token would stand for the id longer than the data.
        storage::delete_token(&config.data_dir)?;
        storage::delete_founder(&config.data_dir)?;
        return Ok(Identity {
            cluster_id: marker.cluster_id,
            node: marker.node_id,
        });
    }
    let identity = match gossip.parts() {
        // A cluster with an id was founded before.
        Some((membership, announcement))
            if config.bootstrap_expect > 0 && config.cluster_id.is_none() =>
        {
            let bootstrap = Bootstrap {
                name: &config.node_id,
                membership,
                announcement: announcement.clone(),
                request: join_request(config, this)?,
                data_dir: (!config.ephemeral).then_some(&config.data_dir),
            };
            match bootstrap.run().await? {
                Some(joined) => joined,
                None => found(config)?,
            }
        }
        _ if config.seeds.is_empty() => found(config)?,
        _ => join(config, this).await?,
    };
    if !config.ephemeral {
        // Before the first word in the cluster: a node that forgot its id would come back as another one.
        let marker = Marker {
            format_version: storage::FORMAT_VERSION,
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node,
            node_name: config.node_id.clone(),
        };
        storage::write_marker(&config.data_dir, &marker)?;
        storage::delete_token(&config.data_dir)?;
        storage::delete_founder(&config.data_dir)?;
    }
    Ok(identity)
}

/// A new cluster, of which this is the first node.
fn found(config: &Config) -> Result<Identity, StartError> {
    let cluster_id = match &config.cluster_id {
        // A founder that lost its disk must not found its cluster a second time.
        Some(id) if config.cluster_port != 0 => {
            return Err(StartError::Refused(format!(
                "the data directory is not of cluster {id}: add --seeds to join it, or leave out --cluster-id to found a new one"
            )));
        }
        Some(id) => id.clone(),
        None => random_id()?,
    };
    let node = FOUNDER;
    tracing::info!(cluster = cluster_id, "founding a cluster");
    Ok(Identity { cluster_id, node })
}

/// How this node asks to be let in: with a token that it has written down, so that it is the same one if it asks again.
fn join_request(config: &Config, this: &RegisterNode) -> Result<JoinRequest, StartError> {
    let written = if config.ephemeral {
        None
    } else {
        storage::read_token(&config.data_dir)?
    };
    let token = match written {
        Some(token) => token,
        None => random_id()?,
    };
    if !config.ephemeral {
        storage::write_token(&config.data_dir, &token)?;
    }
    Ok(JoinRequest {
        cluster_id: config.cluster_id.clone().unwrap_or_default(),
        node: Some(CatalogNode {
            id: 0,
            name: this.name.clone(),
            address: this.address.clone(),
            version: this.version.clone(),
            raft_address: this.raft_address.clone(),
            rack: this.rack.clone(),
            draining: false,
            token,
            given_version: 0,
        }),
    })
}

/// Asks the seeds in turn until one of them has taken this node in, or refuses it for good.
async fn join(config: &Config, this: &RegisterNode) -> Result<Identity, StartError> {
    let request = join_request(config, this)?;
    let mut pause = ASK_AGAIN_MIN;
    let mut said = String::new();
    loop {
        let mut reasons = Vec::new();
        for seed in &config.seeds {
            match ask_seed(seed, &request).await {
                Ok(JoinResponse {
                    cluster_id,
                    node_id: node_id @ 1..,
                    ..
                }) => {
                    tracing::info!(cluster = cluster_id, node = node_id, "joined");
                    let node = NodeId(node_id);
                    return Ok(Identity { cluster_id, node });
                }
                Ok(answer) if !answer.try_again => {
                    return Err(StartError::Refused(answer.refusal));
                }
                Ok(answer) => reasons.push(format!("{seed}: {}", answer.refusal)),
                Err(reason) => reasons.push(format!("{seed}: {reason}")),
            }
        }
        let reasons = reasons.join("; ");
        if reasons != said {
            tracing::warn!(reasons, "no seed takes this node in yet: check --seeds");
            said = reasons;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

async fn ask_seed(seed: &str, request: &JoinRequest) -> Result<JoinResponse, String> {
    let address = crate::config::raft_address(seed).ok_or_else(|| "is not host:port".to_owned())?;
    ask(&address, request).await
}

/// Asks the node that other nodes reach at this address to let this one in.
pub(super) async fn ask(raft_address: &str, request: &JoinRequest) -> Result<JoinResponse, String> {
    let mut client = peers::stranger(raft_address)?;
    match tokio::time::timeout(SEED_TIMEOUT, client.join(request.clone())).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("does not answer".to_owned()),
    }
}

/// Founds the catalog, or waits until it has this node, and brings it up to date with what this node is now. `path` is the
/// data directory, for messages.
pub(super) async fn enter(
    identity: &Identity,
    catalog: &CatalogGroup,
    this: RegisterNode,
    path: &str,
) -> Result<(), StartError> {
    // A founder that leads has applied all there is, so what it misses is not there; one that comes back to a cluster of
    // several does not lead before it has found the others.
    if !identity.has_joined() && catalog.group().leads() {
        if catalog.view().cluster_id().is_empty() {
            let cluster_id = identity.cluster_id.clone();
            change(catalog, Command::FoundCluster(FoundCluster { cluster_id })).await?;
        }
        if catalog.view().node(identity.node).is_none() {
            change(catalog, Command::RegisterNode(this)).await?;
            return Ok(());
        }
    }
    let mut view = catalog.watch();
    let known = view.wait_for(|catalog| catalog.node(identity.node).is_some());
    let known = known.await.map_err(|error| failed(&error))?.clone();
    if known.cluster_id() != identity.cluster_id {
        return Err(StartError::OtherCluster {
            path: path.to_owned(),
            cluster: known.cluster_id().to_owned(),
        });
    }
    let new = RegisterNode {
        id: identity.node.0,
        ..this
    };
    if known
        .node(identity.node)
        .is_some_and(|node| is_as(node, &new))
    {
        return Ok(());
    }
    let catalog = catalog.clone();
    // Not awaited: while most of the cluster is down this node must come up all the same, or nobody would.
    tokio::spawn(async move {
        while let Err(error) = change(&catalog, Command::RegisterNode(new.clone())).await {
            if matches!(error, StartError::Refused(_)) {
                tracing::error!(%error, "this node's address is not known to the cluster");
                return;
            }
            tokio::time::sleep(ASK_AGAIN_MAX).await;
        }
    });
    Ok(())
}

fn is_as(node: &Node, new: &RegisterNode) -> bool {
    node.name == new.name
        && node.address == new.address
        && node.version == new.version
        && node.raft_address == new.raft_address
        && node.rack == new.rack
}

fn failed(error: &dyn std::fmt::Display) -> StartError {
    StartError::Catalog(error.to_string())
}

async fn change(catalog: &CatalogGroup, command: Command) -> Result<(), StartError> {
    let command = CatalogCommand {
        time_ms: clock::now_ms(),
        command: Some(command),
    };
    match catalog.change(&command).await {
        Ok(_) => Ok(()),
        Err(ChangeError::Rejected(rejection)) => Err(StartError::Refused(rejection.to_string())),
        Err(ChangeError::Stopped) => Err(StartError::Refused("the node is stopping".to_owned())),
        Err(error) => Err(failed(&error)),
    }
}

/// A random id, so that two clusters, or two nodes that join, are never taken for one.
fn random_id() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| failed(&error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
