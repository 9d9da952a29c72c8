//! Servers that answer with as much as they can, for the program as it ships.

use serde_json::json;

use super::script::{Effect, Rule, Target, USERS, always, gzip, on};
use super::server::HostileServer;
use super::world::directory;

/// The kinds of flood.
#[derive(Clone, Copy, Debug)]
pub enum Flood {
    /// Lists of objects that hold next to nothing, 64 MiB each.
    Bodies,
    /// A ServiceProviderConfig and errors of that size.
    Answers,
    /// Pages of new rows without end.
    Rows,
}

/// Decompressed bytes of one answer: as many as a body may have.
const BODY: usize = 64 << 20;

pub async fn flooding(flood: Flood) -> HostileServer {
    let server = HostileServer::start(directory(3)).await;
    server.script(rules(flood));
    server
}

fn rules(flood: Flood) -> Vec<Rule> {
    let repeated = |head: &str, unit: &str, tail: &str| {
        let units = unit.repeat((BODY - head.len() - tail.len()) / unit.len());
        Effect::body(gzip([head, &units, tail].concat().as_bytes()))
    };
    let compressed = || Effect::Header("content-encoding", "gzip".to_owned());
    match flood {
        Flood::Bodies => {
            let rows = repeated(r#"{"totalResults":1,"Resources":["#, r#"{"":0},"#, "{}]}");
            vec![on(USERS).then(rows).then(compressed())]
        }
        Flood::Answers => {
            let config = repeated(r#"{"pagination":["#, r#"{"":0},"#, "{}]}");
            let error = repeated(r#"{"scimType":["#, r#"{"":0},"#, "{}]}");
            vec![
                on(Target::Config).then(config).then(compressed()),
                on(USERS).then(Effect::Status(400)).then(error).then(compressed()),
            ]
        }
        Flood::Rows => {
            let row = |index| json!({ "id": format!("i{index}"), "userName": format!("invented{index}"), "title": "x".repeat(200) });
            vec![always().then(Effect::Cap(100)), on(USERS).then(Effect::invent(row))]
        }
    }
}
