//! The whole suite is one binary: `cargo test` runs all of it. It starts Apache Kafka and Apicurio Registry by
//! itself where a test needs them (`services.rs`), and stops them however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test panics where it cannot go on, owns its servers for its lifetime, and prints its seeds"
)]

mod broker;
mod cli;
mod crash_matrix;
mod crashes;
mod end_to_end;
mod events_page;
mod first_sync;
mod group_commit;
mod hostile;
mod mapping;
mod memberships;
mod memory;
mod program;
mod python;
mod reader;
mod removals;
mod samples;
mod savings;
mod scale_out;
mod scenarios;
mod scim2_server;
mod service;
mod services;
mod sliding;
mod tail;
mod tidy;
