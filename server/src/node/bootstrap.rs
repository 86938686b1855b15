//! Nodes without a cluster that found one together, as `--bootstrap-expect` says.
//!
//! All of them name each other, so all that see every one of them choose the same founder: the one with the smallest
//! name. It founds a cluster of one node, which the others join as they would any other. There must never be a second
//! one, so
//!
//! - nobody founds who hears of a node with a cluster: it joins that;
//! - the founder waits until each of the others has consented to *this start* of it. Nobody with a cluster consents, so a
//!   founder that was wiped and comes back learns that its cluster lives, however old the news are that it hears: if
//!   anybody was in that cluster, that one never consents;
//! - a node consents to one founder only, and writes its name down before it says so. Where more nodes start than
//!   `--bootstrap-expect` says, some may see one founder and some another, and two that had the consent of the same node
//!   would found two clusters. So a node that has consented does not found itself, either;
//! - a founder writes its marker before it tells anybody. If it dies then, the others wait for it: nobody else may found.
//!
//! If that founder is gone for good, nobody can know whether it had founded, but the operator. If no node has a cluster,
//! the data directories of those that consented are deleted: there is nothing else in them yet. They say so.

use std::{collections::BTreeMap, mem, path::Path, time::Duration};

use kelda_proto::internal::v1::{JoinRequest, JoinResponse};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    StartError,
    identity::{self, Identity},
};
use crate::{
    membership::{Announcement, Founding, Membership, View},
    storage,
    types::NodeId,
};

/// When to say that not all nodes are there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before those that have, or will have, a cluster are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A node on its way to a cluster.
pub(super) struct Bootstrap<'a> {
    pub(super) name: &'a str,
    pub(super) membership: &'a dyn Membership,
    /// What this node tells of itself.
    pub(super) announcement: Announcement,
    pub(super) request: JoinRequest,
    /// Where it writes down to whom it consents; nowhere if it keeps nothing.
    pub(super) data_dir: Option<&'a Path>,
}

/// What to do as things stand.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Join one of these, which have a cluster.
    Join(Vec<String>),
    /// Not all are there, or too many.
    Wait { here: String },
    /// Consent to this start of another node, and ask it to join until it has founded.
    Consent {
        founder: String,
        start: u64,
        address: String,
    },
    /// The founder would be another one than the one that this node has consented to.
    Refuse { founder: String, agreed: String },
    /// All others are to consent to this node.
    Ask,
    /// All have.
    Found,
}

impl Bootstrap<'_> {
    /// Waits until this node has joined, or is the one to found: `None`.
    pub(super) async fn run(mut self) -> Result<Option<Identity>, StartError> {
        let mut own = self.announcement.founding.unwrap_or_default();
        let mut view = self.membership.watch();
        let mut agreed = match self.data_dir {
            Some(dir) => storage::read_founder(dir)?,
            None => None,
        };
        let complain_at = Instant::now() + PATIENCE;
        // Each trouble is told of once.
        let mut told = Vec::new();
        loop {
            let now = view.borrow_and_update().clone();
            let step = plan(&now, self.name, own, agreed.as_deref());
            let step = step.map_err(StartError::Refused)?;
            let trouble = mem::discriminant(&step);
            let targets = match &step {
                Step::Found => return Ok(None),
                Step::Join(targets) => targets.clone(),
                Step::Ask | Step::Wait { .. } | Step::Refuse { .. } => Vec::new(),
                Step::Consent {
                    founder,
                    start,
                    address,
                } => {
                    if agreed.is_none() {
                        if let Some(dir) = self.data_dir {
                            storage::write_founder(dir, founder)?;
                        }
                        agreed = Some(founder.clone());
                    }
                    if own.consent != *start {
                        own.consent = *start;
                        self.tell(own)?;
                    }
                    vec![address.clone()]
                }
            };
            // All may be dropped: who asks again with its token is given the same id.
            tokio::select! {
                joined = self.join(&targets) => return joined.map(Some),
                changed = view.changed() => if changed.is_err() {
                    return Err(StartError::Refused("gossip has ended".to_owned()));
                },
                () = sleep_until(complain_at), if step.is_trouble() && !told.contains(&trouble) => {
                    told.push(trouble);
                    step.complain(own.expect);
                }
            }
        }
    }

    fn tell(&mut self, own: Founding) -> Result<(), StartError> {
        self.announcement.founding = Some(own);
        let told = self.membership.announce(self.announcement.clone());
        told.map_err(|error| StartError::Refused(error.to_string()))
    }

    /// Asks until one has let this node in, or refuses it for good. One that has no cluster yet answers once it has.
    async fn join(&self, raft_addresses: &[String]) -> Result<Identity, StartError> {
        loop {
            for address in raft_addresses {
                match identity::ask(address, &self.request).await {
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
                    Ok(answer) => tracing::debug!(address, answer.refusal, "not let in yet"),
                    Err(reason) => tracing::debug!(address, reason, "not let in yet"),
                }
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

impl Step {
    /// Whether somebody has to do something if it stays so.
    fn is_trouble(&self) -> bool {
        matches!(self, Self::Wait { .. } | Self::Refuse { .. })
    }

    fn complain(&self, expect: u32) {
        match self {
            Self::Wait { here } => tracing::warn!(
                here,
                "waiting for exactly {expect} nodes to found a cluster: start the others, or correct --bootstrap-expect and --seeds"
            ),
            Self::Refuse { founder, agreed } => tracing::warn!(
                founder,
                "this node has agreed that {agreed} founds the cluster, and nobody else: start {agreed}, and no more nodes than --bootstrap-expect says; if {agreed} is gone for good and no node has a cluster, stop this node and delete its data directory"
            ),
            _ => {}
        }
    }
}

/// Decides, from what gossip has heard and whom this node has agreed to. The error is for the operator.
fn plan(view: &View, me: &str, own: Founding, agreed: Option<&str>) -> Result<Step, String> {
    let others = || view.alive().filter(|node| node.name != me);
    let has_cluster = others().filter(|node| !node.announcement.cluster_id.is_empty());
    let has_cluster: Vec<String> = has_cluster
        .map(|node| node.announcement.raft_address.clone())
        .collect();
    if !has_cluster.is_empty() {
        return Ok(Step::Join(has_cluster));
    }
    let mut founders = BTreeMap::from([(me, (own, ""))]);
    for node in others() {
        // One that does not say so only joins.
        let Some(theirs) = node.announcement.founding else {
            continue;
        };
        if theirs.expect != own.expect {
            return Err(format!(
                "node {} at {} has --bootstrap-expect {} and this one {}: give all the same",
                node.name, node.address, theirs.expect, own.expect
            ));
        }
        let address = node.announcement.raft_address.as_str();
        founders.insert(&node.name, (theirs, address));
    }
    if u32::try_from(founders.len()) != Ok(own.expect) {
        let here: Vec<&str> = founders.into_keys().collect();
        let here = here.join(", ");
        return Ok(Step::Wait { here });
    }
    let founder = founders.first_key_value();
    if let Some((name, _)) = founder
        && let Some(agreed) = agreed.filter(|agreed| agreed != name)
    {
        return Ok(Step::Refuse {
            founder: (*name).to_owned(),
            agreed: agreed.to_owned(),
        });
    }
    if let Some((name, (theirs, address))) = founder
        && *name != me
    {
        return Ok(Step::Consent {
            founder: (*name).to_owned(),
            start: theirs.start,
            address: (*address).to_owned(),
        });
    }
    let mut rest = founders.iter().filter(|(name, _)| **name != me);
    let agreed = rest.all(|(_, (theirs, _))| theirs.consent == own.start);
    Ok(if agreed { Step::Found } else { Step::Ask })
}

#[cfg(test)]
mod tests;
