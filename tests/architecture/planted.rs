//! Breaks every rule on purpose, and keeps each where it is easily broken by mistake.

use super::source::{Source, Violation};
use super::tokens::tokenize;
use super::{rooms, rules};

/// Lines at which a rule finds something in a source.
fn lines(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text))
        .iter()
        .map(|violation| violation.line)
        .collect()
}

#[test]
fn an_upward_or_sideways_import_is_found_in_every_form() {
    for text in [
        "use crate::broker::Broker;",
        "use crate::{types::Offset, broker};",
        "use crate::{types::{Offset, LogIndex}, broker::{self, Error}};",
        "use {crate::types::Offset, crate::broker::Broker};",
        "pub(crate) use crate::broker as verbs;",
        "fn f() -> crate::broker::Broker {}",
        "use super::super::broker::Broker;",
        "use super::super::{types::Offset, broker::Broker};",
        "mod tests { use super::super::super::broker::Broker; }",
        "use crate::*;",
        "use crate::{types::Offset, *};",
        "use crate::attic::Box;",
        "use crate::membership::Members;",
        "const QUOTE: char = '\"'; use crate::broker::Broker; // \"",
        "const RAW: &str = r#\"\"\"#; use crate::broker::Broker;",
        "fn f<'a>() -> &'a str { crate::broker::name() }",
    ] {
        let path = "server/src/storage/writer.rs";
        assert_eq!(lines(rooms::imports, path, text), [1], "{text}");
    }
}

#[test]
fn a_downward_or_inner_import_is_not_found() {
    for text in [
        "use crate::types::Offset;",
        "use crate::{telemetry::clock, types::{self, Offset}};",
        "use crate::storage::keys::Key;",
        "use super::keys::Key;",
        "use super::{keys::Key, broker::Broker};",
        "mod tests { use super::super::broker::Broker; }",
        "mod tests { use super::*; }",
        "pub(super) struct A; pub(crate) struct B; pub(in crate::storage) struct C;",
        "// use crate::broker::Broker;",
        "/* use /* nested */ crate::broker::Broker; */",
        "const TEXT: &str = \"use crate::broker::Broker;\";",
        "const RAW: &str = r#\"\"use crate::broker::Broker;\"#;",
        "use other::crate_broker::Broker;",
    ] {
        let path = "server/src/storage/writer.rs";
        assert_eq!(lines(rooms::imports, path, text), [0; 0], "{text}");
    }
}

#[test]
fn every_floor_may_import_the_floors_below_only() {
    let order = [
        "node",
        "config",
        "rpc",
        "broker",
        "consensus",
        "storage",
        "middleware",
        "machine",
        "types",
    ];
    for (floor, room) in order.iter().enumerate() {
        for path in [
            format!("server/src/{room}.rs"),
            format!("server/src/{room}/mod.rs"),
        ] {
            for (other_floor, other) in order.iter().enumerate() {
                let text = format!("\nuse crate::{other}::X;");
                let found = lines(rooms::imports, &path, &text);
                assert_eq!(found.is_empty(), floor <= other_floor, "{room} -> {other}");
            }
        }
    }
    assert_eq!(lines(rooms::imports, "server/src/attic/mod.rs", ""), [1]);
    let sideways = "use crate::machine::partition::Partition;";
    assert_eq!(
        lines(rooms::imports, "server/src/telemetry/metrics.rs", sideways),
        [1]
    );
}

#[test]
fn a_library_outside_its_room_is_found() {
    for (library, home) in [
        ("openraft", "server/src/consensus/groups.rs"),
        ("openraft_rt_tokio", "server/src/consensus/groups.rs"),
        ("redb", "server/src/storage/backend/redb.rs"),
        ("memberlist", "server/src/membership/mod.rs"),
        ("opentelemetry_sdk", "server/src/telemetry/metrics.rs"),
        ("tracing_opentelemetry", "server/src/telemetry/metrics.rs"),
        ("prometheus", "server/src/telemetry/metrics.rs"),
        ("tonic", "server/src/rpc/produce.rs"),
    ] {
        for text in [
            format!("\nuse {library}::X;"),
            format!("\nuse {library} as other;"),
            format!("\nuse {{std::fmt, {library}::X}};"),
            format!("\nfn f() {{ {library}::x() }}"),
            format!("\nextern crate {library};"),
        ] {
            assert_eq!(
                lines(rules::libraries, "server/src/broker/mod.rs", &text),
                [2],
                "{text}"
            );
            assert_eq!(lines(rules::libraries, home, &text), [0; 0], "{text}");
        }
    }
    let own_module = "use crate::storage::backend::redb; mod redb; let redb = redb; // redb::X";
    assert_eq!(
        lines(rules::libraries, "server/src/broker/mod.rs", own_module),
        [0; 0]
    );
}

#[test]
fn a_status_made_in_another_place_is_found() {
    for text in [
        "use tonic::Status;\nfn f() { Status::internal(\"no\") }",
        "use tonic::{Code, Status};\nfn f() { Status::new(Code::Ok, \"\") }",
        "use tonic::Status as Answer;\nfn f() { Answer::not_found(\"\") }",
        "\nfn f() { tonic::Status::internal(\"no\") }",
        "use tonic::Status;\nfn f() { Err(Status::with_error_details(a, b, c)) }",
    ] {
        assert_eq!(
            lines(rules::statuses, "server/src/rpc/produce.rs", text),
            [2],
            "{text}"
        );
        for maker in ["server/src/rpc/status.rs", "server/src/middleware/reply.rs"] {
            assert_eq!(lines(rules::statuses, maker, text), [0; 0], "{text}");
        }
    }
    for text in [
        "use tonic::Status; fn f() -> Result<(), Status> { g().map_err(status::of) }",
        "use tonic::Status; fn f() { Status::from_header_map(headers) }",
        "use tonic::Status; mod tests { fn f() { Status::internal(\"no\") } }",
        "use crate::storage::Status; fn f() { Status::new() }",
    ] {
        assert_eq!(
            lines(rules::statuses, "server/src/rpc/produce.rs", text),
            [0; 0],
            "{text}"
        );
    }
}

#[test]
fn the_wall_clock_in_another_place_is_found() {
    let text = "use std::{fmt,\n time::SystemTime};";
    assert_eq!(
        lines(rules::wall_clock, "server/src/broker/mod.rs", text),
        [2]
    );
    assert_eq!(
        lines(rules::wall_clock, "server/src/telemetry/clock.rs", text),
        [0; 0]
    );
    assert_eq!(
        lines(
            rules::wall_clock,
            "server/src/broker/mod.rs",
            "// SystemTime"
        ),
        [0; 0]
    );
}

#[test]
fn a_long_file_is_found() {
    let path = "bench/src/main.rs";
    assert_eq!(lines(rules::length, path, &"\n".repeat(501)), [501]);
    assert_eq!(lines(rules::length, path, &"\n".repeat(500)), [0; 0]);
}

#[test]
fn a_lint_switched_off_without_a_reason_is_found() {
    for text in [
        "\n#[allow(dead_code)]",
        "\n#![allow(dead_code)]",
        "\n#[expect(\n    dead_code\n)]",
        "\n#[cfg_attr(test, allow(dead_code))]",
        "/// What it does.\n#[allow(dead_code)]",
        "// Of another line.\n\n#[allow(dead_code)]",
    ] {
        assert_eq!(
            lines(rules::allows, "cli/src/main.rs", text).len(),
            1,
            "{text}"
        );
    }
    for text in [
        "\n#[allow(dead_code, reason = \"it is planted\")]",
        "\n#![expect(\n    dead_code,\n    reason = \"it is planted\"\n)]",
        "// It is planted.\n#[allow(dead_code)]",
        "\n#[allow(dead_code)] // It is planted.",
        "\n#[derive(Debug)] fn allow() { x.expect(\"it is there\") }",
    ] {
        assert_eq!(
            lines(rules::allows, "cli/src/main.rs", text),
            [0; 0],
            "{text}"
        );
    }
}

#[test]
fn unfinished_work_is_found() {
    for mark in [
        ["to", "do!()"],
        ["unimple", "mented!()"],
        ["// FIX", "ME: later"],
    ] {
        let text = format!("\n\n{}", mark.concat());
        assert_eq!(
            lines(rules::unfinished, "proto/kelda/v1/record.proto", &text),
            [3]
        );
    }
    let text = "// The methods todo, fix and unimplemented are not marks.";
    assert_eq!(lines(rules::unfinished, "cli/src/main.rs", text), [0; 0]);
}

#[test]
fn a_source_is_split_into_words_and_signs() {
    let text = "a::b /* c */ 'd' '\\'' &'e \"f\\\"\" b\"g\" br##\"h\"#i\"## // j\nk<r, 'l'>";
    let tokens = tokenize(text);
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(words, ["a", "::", "b", "&", "e", "k", "<", "r", ",", ">"]);
    assert_eq!(tokens.iter().map(|token| token.line).max(), Some(2));
    let tokens = tokenize("mod a { fn f() { x } mod b { y } } z");
    let modules = |word: &str| {
        let token = tokens.iter().find(|token| token.text == word);
        token.map(|token| token.modules.join("::"))
    };
    assert_eq!(modules("x").as_deref(), Some("a"));
    assert_eq!(modules("y").as_deref(), Some("a::b"));
    assert_eq!(modules("z").as_deref(), Some(""));
}
