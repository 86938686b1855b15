//! Several nodes as processes of their own: they form a cluster, any of them takes any call, and killing them loses
//! nothing.

mod support;

mod cluster {
    mod bootstrap;
    mod failover;
    mod forming;
    mod gossip;
    mod moving;
    mod placement;
    mod quiet;
}
