//! The whole suite is one binary: `cargo test` runs all of it. It starts Apache Kafka and Apicurio Registry by
//! itself where a test needs them (`services.rs`), and stops them however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test panics where it cannot go on, owns its servers for its lifetime, and prints its seeds"
)]

mod alerts;
mod asyncapi;
mod book;
mod broker;
mod cases;
mod causes;
mod cli;
mod commands_page;
mod configuration_page;
mod contract;
mod crash_matrix;
mod crashes;
mod dashboard;
mod demo;
mod embedded_kafka;
mod end_to_end;
mod ending;
mod events_page;
mod first_sync;
mod flood;
mod group_commit;
mod history;
mod hostile;
mod imports;
mod injected;
mod keycloak;
mod keycloak_server;
mod machine;
mod mapping;
mod meddling;
mod memberships;
mod memory;
mod merging;
mod metrics_page;
mod network;
mod okta;
mod outage;
mod outcomes;
mod outputs;
mod oversized;
mod program;
mod proxy;
mod python;
mod reader;
mod reasons_page;
mod recording;
mod records_page;
mod refusals;
mod release;
mod removals;
mod repair;
mod requests;
mod reseed;
mod restore;
mod samples;
mod savings;
mod scale_out;
mod scenarios;
mod scim2_server;
mod secured;
mod service;
mod services;
mod simulation;
mod sliding;
mod state;
mod status;
mod tail;
mod tidy;
mod tls;
mod vendors;
