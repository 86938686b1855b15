//! The checker of histories finds what it is there to find, and nothing else.

mod support;

mod checker {
    mod dumps;
    mod legal;
    mod model;
    mod mutations;
    mod places;
    mod planted;
    mod recording;
    mod script;
}
