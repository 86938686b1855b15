//! From an empty directory to the first ack.

use anyhow::Result;

use super::restart::repeat_until_done;
use crate::{
    Plan,
    broker::Broker,
    report::{Goal, Measure},
};

/// Time from starting the process to the ack of a record in a topic that was created in between. It includes two
/// runs of the command line, as a person or a script would have them.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut seconds = Vec::new();
    // Short runs: more of them cost little.
    for _ in 0..plan.repeat.max(5) {
        let directory = plan.workspace.directory()?;
        let broker = Broker::start(&plan.workspace, directory.path())?;
        let client = broker.client(&plan.workspace);
        repeat_until_done(|| client.create_topic("first"))?;
        client.produce_one("first")?;
        seconds.push(broker.age().as_secs_f64());
    }
    Ok(vec![
        Measure::new("start on an empty directory to the first ack", "s", seconds)
            .goal(Goal::AtMost(0.2)),
    ])
}
