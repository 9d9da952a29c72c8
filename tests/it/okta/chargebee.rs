//! Chargebee's roles by way of Okta, with the program as a person runs it.

use serde_json::{Value, json};

use super::org::Org;
use super::server::{SimulatedOkta, TOKEN};
use crate::program::{AccountText, Program};
use crate::services::{services, unique_prefix};

const ORG: &str = "
    user 00u1 ann ACTIVE
    user 00u2 bob ACTIVE
    group 00g0 BUILT_IN Everyone: 00u1 00u2
    group 00g1 OKTA_GROUP CB/acme.com/ROLE/Admin: 00u1
    group 00g2 OKTA_GROUP CB/acme.com/BE/Europe/West: 00u2
    group 00g3 OKTA_GROUP Lunch: 00u1 00u2
";

/// Five lines of an account.
fn configured(okta: &SimulatedOkta, prefix: &str, lines: &str) -> Program {
    let services = services();
    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\npartitions = 1\nreplication = 1\n\
         [registry]\nurl = \"{}\"\n\
         [[account]]\nname = \"acme-okta\"\nprovider = \"okta\"\nbase_url = \"{}\"\n{lines}\n",
        services.bootstrap, services.registry, okta.base_url
    );
    let program = Program::with_text(prefix, TOKEN, &text);
    std::fs::write(program.file().with_file_name("token"), TOKEN).expect("a token");
    std::fs::write(program.file().with_file_name("key.pem"), include_str!("../../keys/p256.pem")).expect("a key");
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn chargebees_roles_are_read_from_okta_with_five_lines() {
    let okta = SimulatedOkta::start(Org::parse(ORG)).await;
    let prefix = unique_prefix("okta-chargebee");
    let program = configured(&okta, &prefix, "token_file = \"token\"\ngroups = [\"CB/*\"]");
    let first = program.run(&["run", "--once"]).await;
    assert_eq!(first.code, 0, "{first:?}");
    okta.change(|org| {
        org.join("00g1", "00u2");
        org.join("00g3", "00u2");
        org.leave("00g2", "00u2");
    });
    let second = program.run(&["run", "--once"]).await;
    assert_eq!(second.code, 0, "{second:?}");
    let tail = program.run(&["tail", "--from-beginning", "--exit", "--format", "json"]).await;
    let events: Vec<(String, String, String, String)> = tail
        .out
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (text("event_type"), text("principal_name"), text("entitlement_kind"), text("entitlement_name"))
        })
        .collect();
    let event = |kind: &str, entitlement: &str, name: &str| {
        (kind.to_owned(), "bob@acme.example".to_owned(), entitlement.to_owned(), name.to_owned())
    };
    assert_eq!(
        events,
        [event("membership.removed", "business_entity", "Europe/West"), event("membership.added", "role", "Admin"),],
        "{}",
        tail.out
    );
    let state = program.run(&["state", "groups", "--format", "json"]).await;
    assert!(state.out.contains("CB/acme.com/ROLE/Admin") && !state.out.contains("Lunch"), "{state:?}");

    let check = program.run(&["check", "acme-okta"]).await;
    assert_eq!(check.code, 0, "{check:?}");
    for words in [
        "ok    users       2 listed, deactivated ones among them",
        "ok    groups      2 listed, those that `groups` names",
        "ok    requests    a first sync takes ",
        "at most 50 % of the vendor's limits are used",
        "Users are found by id, others are not: removals can be proven",
        "Groups are found by id, others are not: removals can be proven",
    ] {
        assert!(check.out.contains(words), "{words}: {}", check.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_that_none_of_okta_has_is_named_by_check() {
    let okta = SimulatedOkta::start(Org::parse(ORG)).await;
    okta.change(|org| org.user("00u1")["profile"]["costCode"] = json!("4711"));
    let attributes = "attributes_add = [\"profile.costCode\", \"profile.costcod\", \"lastMembershipUpdated\"]";
    let account = format!("token_file = \"token\"\n{attributes}");
    let program = configured(&okta, &unique_prefix("okta-attributes"), &account);
    let check = program.run(&["check", "acme-okta"]).await;
    let notes: Vec<&str> = check.out.lines().filter(|line| line.contains("note  attributes")).collect();
    let named = "5 users and groups on the first pages has `profile.costcod`; did you mean `profile.costCode`?";
    assert!(check.code == 0 && notes.len() == 1 && notes[0].ends_with(named), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_okta_refuses_check_plan_and_run_say_alike() {
    let okta = SimulatedOkta::start(Org::parse(ORG)).await;
    let by_token = configured(&okta, &unique_prefix("okta-token"), "token_file = \"token\"");
    let app = "client_id = \"0oa-client\"\nprivate_key_file = \"key.pem\"";
    let by_app = configured(&okta, &unique_prefix("okta-app"), app);
    let refused = |status: u16, code: &str| Some((status, vec![], format!(r#"{{"errorCode":"{code}"}}"#)));
    for (program, refusal, token_error, words, remedy) in [
        (
            &by_token,
            refused(401, "E0000011"),
            None,
            "Okta refuses the API token",
            "Security > API > Tokens > Create token",
        ),
        (&by_token, refused(403, "E0000006"), None, "the API token may not read", "the role Read-only Administrator"),
        (&by_token, Some((403, vec![], String::new())), None, "Okta refuses the address", "Security > Networks"),
        (&by_app, refused(403, "E0000006"), None, "the app may not read", "Admin roles: add Read-only Administrator"),
        (&by_app, None, Some("invalid_scope"), "refused the scope", "Okta API Scopes: Grant okta.users.read"),
        (
            &by_app,
            None,
            Some("invalid_dpop_proof"),
            "other proofs of possession (DPoP)",
            "clear \"Require Demonstrating",
        ),
    ] {
        okta.faults(|faults| (faults.refused, faults.token_error) = (refusal, token_error));
        for arguments in [["check", "acme-okta"].as_slice(), &["plan"], &["run", "--once"]] {
            let ended = program.run(arguments).await;
            let said = format!("{}{}", ended.out, ended.err);
            assert!(ended.code == 78 && said.contains(words) && said.contains(remedy), "{arguments:?}: {ended:?}");
        }
    }
    okta.faults(|faults| (faults.refused, faults.token_error, faults.dpop) = (None, None, true));
    let ended = by_app.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "an organisation that asks for DPoP is read: {ended:?}");
}

/// A SCIM address that answers every list so.
async fn endpoint(status: u16, body: Value) -> String {
    let answer = move || {
        let body = axum::Json(body.clone());
        async move { (axum::http::StatusCode::from_u16(status).expect("a status"), body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    format!("http://{address}/scim/v2")
}

#[tokio::test(flavor = "multi_thread")]
async fn where_chargebee_refuses_or_lists_nobody_check_names_the_way_by_okta() {
    let list = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
    let empty = json!({ "schemas": [list], "totalResults": 0, "startIndex": 1, "itemsPerPage": 0, "Resources": [] });
    for (status, body, code) in [(405, json!({}), 78), (501, json!({}), 78), (404, json!({}), 78), (200, empty, 0)] {
        let base_url = endpoint(status, body).await;
        let account = AccountText { name: "acme-chargebee", provider: "chargebee", base_url, more: "" };
        let program = Program::new(services(), &unique_prefix("chargebee-pushes"), TOKEN, "5m", &[account]);
        let ended = program.run(&["check", "acme-chargebee"]).await;
        let way = "read Chargebee's groups at their source, e.g. provider = \"okta\" with groups = [\"CB/*\"]";
        assert!(ended.code == code && ended.out.contains(way), "{status}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_of_an_okta_account_say_what_to_write() {
    let refused = async |account: &str, code: i32, words: &[&str]| {
        let text = format!(
            "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n[[account]]\nname = \"a\"\n{account}\n"
        );
        let program = Program::with_text("unused", TOKEN, &text);
        for command in [["check"].as_slice(), &["plan"], &["run", "--once"]] {
            program.run(command).await.refused(code, words);
        }
    };
    let okta = "provider = \"okta\"\ntoken_file = \"t\"\nbase_url = \"https://acme.okta.com\"";
    let admin = okta.replace("acme.okta.com", "acme-admin.okta.com");
    refused(&admin, 78, &["base_url is the address of Okta's Admin Console", "→ the Okta domain without -admin"]).await;
    refused(&okta.replace(".com", ".com/api/v1"), 78, &["base_url has a path", "https://acme.okta.com"]).await;
    refused(
        &format!("{okta}\nclient_id = \"c\""),
        78,
        &["`token_file` has no use", "→ either token_env or token_file, or"],
    )
    .await;
    refused(&format!("{okta}\ngroups = []"), 78, &["groups has no name", "→ groups = [\"CB/*\"]"]).await;
    let generic = okta.replace("\"okta\"", "\"generic\"");
    refused(&format!("{generic}\ngroups = [\"x\"]"), 78, &["cannot be read group by group; → remove `groups`"]).await;
}
