//! Any behaviour of the server: a random script of tricks for each sync, and after each pair of syncs a calm one.

use std::collections::BTreeSet;

use serde_json::json;

use super::script::{Delivery, Effect, GROUP, GROUPS, Rule, USER, USERS, always, on};
use super::truth::Truth;
use super::world::HostileWorld;

const SEEDS: u64 = 24;
const ROUNDS: usize = 12;
/// Enough users that the changes of a few rounds are not a mass change.
const USERS_AT_FIRST: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn g3_whatever_a_server_does_no_user_is_removed_who_is_there() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        Box::pin(soak(fastrand::Rng::with_seed(seed))).await;
    }
}

async fn soak(mut random: fastrand::Rng) {
    let mut world = HostileWorld::baseline(USERS_AT_FIRST).await;
    for round in 0..ROUNDS {
        world.server.change(|truth| live(truth, &mut random, round));
        let calm = round % 3 == 2;
        let rules: Vec<Rule> =
            if calm { Vec::new() } else { (0..random.usize(1..4)).map(|_| rule(&mut random)).collect() };
        println!("round {round}: {rules:?}");
        let before = world.lines().len();
        world.server.script(rules);
        let status = world.sync().await;
        println!("{:?} {:?} {:?}", status.status, status.reason_code, world.lines()[before..].join(", "));
        assert!(world.server.requests().len() < 150, "{} requests", world.server.requests().len());
        let truth = world.server.change(|truth| truth.clone());
        for line in &world.lines()[before..] {
            assert!(!is_false(line, &truth), "{line}");
        }
        if calm {
            assert_eq!(status.status, scimtail::directory::Status::Completed, "{:?}", status.reason);
            world.assert_state_is_the_truth();
        }
    }
}

/// A removal of a user or group that is there.
fn is_false(line: &str, truth: &Truth) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["user.removed", id, ..] => truth.users.contains_key(id),
        ["group.removed", id, ..] => truth.groups.contains_key(id),
        ["membership.removed", id, "in", group, ..] => {
            let members = truth.groups.get(group).and_then(|group| group["members"].as_array());
            let listed = members.is_some_and(|members| members.iter().any(|member| member["value"] == id));
            listed && (truth.users.contains_key(id) || truth.groups.contains_key(id))
        }
        _ => false,
    }
}

/// The changes in a directory between two syncs.
fn live(truth: &mut Truth, random: &mut fastrand::Rng, round: usize) {
    let ids: Vec<String> = truth.users.keys().cloned().collect();
    let somebody = ids[random.usize(..ids.len())].clone();
    match random.u8(..6) {
        0 => drop(truth.users.remove(&somebody)),
        1 => {
            let id = format!("r{round:02}");
            truth.users.insert(id.clone(), json!({ "id": id, "userName": format!("round{round}"), "active": true }));
        }
        2 => truth.users.get_mut(&somebody).unwrap()["title"] = json!(format!("title {round}")),
        3 => {
            let group = truth.groups.get_mut("g1").unwrap();
            group["members"].as_array_mut().unwrap().push(json!({ "value": somebody }));
        }
        4 => {
            let group = truth.groups.get_mut("g1").unwrap();
            group["members"].as_array_mut().unwrap().retain(|member| member["value"] != *somebody);
        }
        _ => {}
    }
}

fn rule(random: &mut fastrand::Rng) -> Rule {
    let list = if random.bool() { USERS } else { GROUPS };
    let mut rule = match random.u8(..6) {
        0 => always(),
        1 => on(list),
        _ => on(list).page(random.usize(1..8)),
    };
    if random.u8(..4) == 0 {
        rule = rule.walk(1);
    }
    if random.u8(..4) == 0 {
        rule = rule.attempt(1);
    }
    match random.u8(..8) {
        // One by one: a failure there proves nothing. A GET that says 404 for an existing user cannot be told from the
        // truth, so here it says so for all of them.
        0 => {
            let one = on(if random.bool() { USER } else { GROUP });
            let status = [404, 410, 403, 405, 500, 429][random.usize(..6)];
            if random.bool() {
                one.then(Effect::Status(status))
            } else {
                one.then(Effect::Deliver(Delivery::Reset(None)))
            }
        }
        1..=3 => rule.then(false_list(random)),
        _ => rule.then(broken(random)),
    }
}

/// A list that reads well and is wrong.
fn false_list(random: &mut fastrand::Rng) -> Effect {
    let some: BTreeSet<String> =
        (0..random.usize(1..4)).map(|_| format!("u{:02}", random.usize(..USERS_AT_FIRST))).collect();
    match random.u8(..12) {
        0 => Effect::IgnoreStart,
        1 => Effect::IgnoreCount,
        2 => Effect::Cap(random.usize(1..3)),
        3 => Effect::WrapAround,
        4 => Effect::Back(random.usize(1..3)),
        5 => Effect::LeaveOut(some.into_iter().collect()),
        6 => Effect::LeaveOut((0..USERS_AT_FIRST).map(|n| format!("u{n:02}")).collect()),
        7 => Effect::edit(|body| body["Resources"] = json!([])),
        8 => {
            let total = random.u32(..200);
            Effect::edit(move |body| body["totalResults"] = json!(total))
        }
        9 => Effect::edit(|body| {
            for row in body["Resources"].as_array_mut().into_iter().flatten() {
                row.as_object_mut().map(|row| row.remove("members"));
            }
        }),
        10 => Effect::afterwards(move |truth| some.iter().for_each(|id| drop(truth.users.remove(id)))),
        _ => Effect::edit(|body| {
            for row in body["Resources"].as_array_mut().into_iter().flatten() {
                if row["members"].is_array() {
                    row["members"] = json!([]);
                }
            }
        }),
    }
}

/// An answer that breaks.
fn broken(random: &mut fastrand::Rng) -> Effect {
    let at = random.usize(..600);
    match random.u8(..12) {
        0 => Effect::Status([400, 401, 403, 404, 429, 500, 501, 503][random.usize(..8)]),
        1 => Effect::Deliver(Delivery::Reset((random.bool()).then_some(at))),
        2 => Effect::Deliver(Delivery::Cut(at)),
        3 => Effect::Deliver(Delivery::LengthOff(-(at as i64 % 90))),
        4 => Effect::body("<html>Sign in</html>"),
        5 => Effect::body("{}"),
        6 => Effect::Gzip(random.usize(1..3)),
        7 => Effect::Header("content-encoding", "gzip".into()),
        8 => Effect::Status(302),
        9 => Effect::field("Resources", json!(null)),
        10 => Effect::rewrite(move |body| body.as_bytes()[..at.min(body.len())].to_vec()),
        _ => {
            let flip = 1 << random.u8(..7);
            Effect::rewrite(move |body| {
                let mut bytes = body.into_bytes();
                let at = at % bytes.len();
                bytes[at] ^= flip;
                bytes
            })
        }
    }
}
