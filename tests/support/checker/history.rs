//! What clients did and saw.

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter},
    str::FromStr,
};

/// A value, sent at most once in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value {
    /// The client that sends it.
    pub(crate) producer: u32,
    /// Counts the values of that client.
    pub(crate) number: u32,
}

impl Value {
    /// Stands for bytes that are no value: nobody has sent it, so reading it breaks a rule.
    pub(crate) const FOREIGN: Self = Self {
        producer: u32::MAX,
        number: u32::MAX,
    };
}

impl Display for Value {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.producer, self.number)
    }
}

impl FromStr for Value {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (producer, number) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self {
            producer: producer.parse()?,
            number: number.parse()?,
        })
    }
}

/// A value on its way into a log, and the offset that the broker told.
pub(crate) type Sent = (Value, Option<i64>);

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends values to a partition, atomically and next to each other.
    Send { partition: i32, values: Vec<Sent> },
    /// Reads from a partition what follows the poll before; the offsets and values that came.
    Poll {
        partition: i32,
        records: Vec<(i64, Value)>,
    },
    /// The client goes on in this partition wherever it likes.
    Assign { partition: i32 },
    /// After the last fault the client has assigned the partition at its start and polled until its end.
    Drain { partition: i32 },
    /// The client has lost its memory: its positions and its producer session.
    Crash,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It certainly happened.
    Ok,
    /// It certainly did not.
    Fail,
    /// Nobody knows, perhaps as it never came back.
    Info,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Who did it. Sends of one client take effect in the order in which they were invoked.
    pub(crate) client: u32,
    /// When it began: in microseconds since the recording began, each moment only once.
    pub(crate) invoked: u64,
    /// When it ended; nothing if it never came back.
    pub(crate) completed: Option<u64>,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
}

impl Display for Operation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let completed = self.completed.map(|at| at.to_string()).unwrap_or_default();
        let Self {
            client, invoked, ..
        } = self;
        write!(formatter, "client {client}, {invoked}..{completed} µs: ")?;
        match &self.kind {
            Kind::Send { partition, values } => {
                let values = shortened(values.iter().map(|(value, offset)| match offset {
                    Some(offset) => format!("{value} at {offset}"),
                    None => value.to_string(),
                }));
                write!(formatter, "send to partition {partition} [{values}]")?;
            }
            Kind::Poll { partition, records } => {
                let records = records.iter();
                let records =
                    shortened(records.map(|(offset, value)| format!("{offset}: {value}")));
                write!(formatter, "poll of partition {partition} [{records}]")?;
            }
            Kind::Assign { partition } => write!(formatter, "assign partition {partition}")?,
            Kind::Drain { partition } => write!(formatter, "drain partition {partition}")?,
            Kind::Crash => write!(formatter, "crash")?,
        }
        write!(formatter, " {:?}", self.outcome)
    }
}

/// The first and last few of many.
fn shortened(items: impl ExactSizeIterator<Item = String>) -> String {
    const ENDS: usize = 6;
    let length = items.len();
    let mut text = String::new();
    for (at, item) in items.enumerate() {
        if at >= ENDS && at + ENDS < length {
            if at == ENDS {
                text.push_str(", ...");
            }
            continue;
        }
        if at > 0 {
            text.push_str(", ");
        }
        text.push_str(&item);
    }
    text
}

/// Operations in the order in which they were invoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    operations: Vec<Operation>,
}

impl History {
    /// Puts operations in order, and asserts that they can be judged.
    pub(crate) fn new(mut operations: Vec<Operation>) -> Self {
        operations.sort_by_key(|operation| operation.invoked);
        let mut moments = HashSet::new();
        let mut sent = HashSet::new();
        for operation in &operations {
            let once = [Some(operation.invoked), operation.completed];
            for moment in once.into_iter().flatten() {
                assert!(moments.insert(moment), "a moment is taken: {operation}");
            }
            let completed = operation.completed.unwrap_or(u64::MAX);
            assert!(operation.invoked < completed, "it ends before: {operation}");
            let known = operation.completed.is_some() || operation.outcome == Outcome::Info;
            assert!(known, "its outcome is not known: {operation}");
            if let Kind::Send { values, .. } = &operation.kind {
                for (value, _) in values {
                    assert!(sent.insert(*value), "{value} is sent twice: {operation}");
                }
            }
        }
        Self { operations }
    }

    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub(crate) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}
