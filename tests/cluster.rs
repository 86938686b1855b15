//! Several nodes as processes of their own: they form a cluster, any of them takes any call, and whatever happens to
//! them loses nothing.

mod support;

mod cluster {
    mod ask;
    mod balance;
    mod bootstrap;
    mod clients;
    mod elsewhere;
    mod faults;
    mod floods;
    mod forming;
    mod gossip;
    mod handing_over;
    mod minority;
    mod moving;
    mod partitions;
    mod placement;
    mod quiet;
    mod refusals;
    mod strangers;
    mod survival;
}
