//! Several nodes as processes of their own: they form a cluster, any of them takes any call, and killing them loses
//! nothing.

mod support;

mod cluster {
    mod failover;
    mod forming;
    mod moving;
    mod placement;
}
