//! Pure state machines: input in, effects out. No async, clock, randomness, logging or hash-map order, so that
//! every replica that applies the same commands has the same state. Start reading at [`partition`].
