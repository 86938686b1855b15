//! Nodes in processes of their own, faults while clients write and read, and a checker that has the last word.

mod support;

mod chaos {
    mod connections;
    mod crashes;
    mod network;
    mod proxy;
    mod rewound;
}
