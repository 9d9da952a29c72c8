//! Every profile that ships, against a replay of its vendor: made-up people in the shapes that the vendor documents,
//! with its paging, limits, credential and habits of removal. `check`, `plan` and `run --once` are called as a person
//! calls them, before and after everything that happens in a company. `vendors.toml` has the vendors.
//!
//! All vendors are accounts of one configuration, which the first test of these runs. Each test says what was wrong with
//! one of them.

mod company;
mod recordings;
mod server;
mod truth;
mod vendor;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, RwLock};

use scimtail::scim::Profile;
use scimtail::scim::layers::EMBEDDED;
use scimtail::scim::profile::{Api, Auth, Operation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::program::{Ended, Program, TOKEN_VARIABLE};
use crate::reader::{ReadRecord, compacted, read};
use crate::services::{services, unique_prefix};
use company::{Company, ROUNDS};
use server::{LOGIN, Replay, TEMPO, TOKEN};
use truth::{Truth, event_line, or_nothing, user_line};
use vendor::Vendor;

/// A test for each vendor.
macro_rules! replays {
    ($($test:ident $name:literal)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            assert_right($name).await;
        })*
        const TESTED: &[&str] = &[$($name),*];
    };
}

replays! {
    airtable_is_read_as_it_is "airtable"
    asana_is_read_as_it_is "asana"
    atlassian_is_read_as_it_is "atlassian"
    aws_identity_center_is_read_as_it_is "aws-identity-center"
    chargebee_is_read_as_it_is "chargebee"
    claude_is_read_as_it_is "claude"
    databricks_is_read_as_it_is "databricks"
    datadog_is_read_as_it_is "datadog"
    entra_is_read_as_it_is "entra"
    figma_is_read_as_it_is "figma"
    github_is_read_as_it_is "github"
    github_org_is_read_as_it_is "github-org"
    gitlab_is_read_as_it_is "gitlab"
    govslack_is_read_as_it_is "govslack"
    grafana_is_read_as_it_is "grafana"
    hcp_terraform_is_read_as_it_is "hcp-terraform"
    keycloak_is_read_as_it_is "keycloak"
    miro_is_read_as_it_is "miro"
    netskope_is_read_as_it_is "netskope"
    new_relic_is_read_as_it_is "new-relic"
    notion_is_read_as_it_is "notion"
    oracle_identity_domains_is_read_as_it_is "oracle-identity-domains"
    postman_is_read_as_it_is "postman"
    salesforce_is_read_as_it_is "salesforce"
    sap_cloud_identity_is_read_as_it_is "sap-cloud-identity"
    sentry_is_read_as_it_is "sentry"
    servicenow_is_read_as_it_is "servicenow"
    slack_is_read_as_it_is "slack"
    snowflake_is_read_as_it_is "snowflake"
    stripe_is_read_as_it_is "stripe"
    webex_is_read_as_it_is "webex"
    workos_is_read_as_it_is "workos"
    wso2_is_read_as_it_is "wso2"
    zoom_is_read_as_it_is "zoom"
}

#[test]
fn every_profile_that_ships_has_a_replay_and_no_replay_brings_a_profile_that_ships() {
    let vendors = vendors();
    let names: BTreeSet<&str> = vendors.iter().map(|vendor| vendor.name.as_str()).collect();
    assert_eq!(names, TESTED.iter().copied().collect(), "the replays and their tests");
    assert_eq!(names.len(), vendors.len(), "a vendor has two replays");
    // Generic is no vendor, some directories cannot be read, and Okta speaks an API of its own (`tests/it/okta`).
    let is_read = |name: &str| {
        let Profile { unreadable, api, .. } = Profile::named(name).unwrap();
        name != "generic" && unreadable.is_none() && api == Api::Scim
    };
    for (name, _) in EMBEDDED.iter().filter(|(name, _)| is_read(name)) {
        let vendor = vendors.iter().find(|vendor| vendor.name == *name);
        let vendor = vendor.unwrap_or_else(|| panic!("{name} has no replay in vendors.toml"));
        assert!(vendor.profile.is_none(), "{name} ships: its replay needs no profile of its own");
    }
}

fn vendors() -> Vec<Vendor> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        vendor: Vec<Vendor>,
    }
    let table: Table = toml::from_str(include_str!("vendors.toml")).unwrap_or_else(|error| panic!("{error}"));
    table.vendor
}

/// What was wrong, by vendor.
type Faults = BTreeMap<String, Vec<String>>;

async fn assert_right(name: &str) {
    static PLAYED: OnceCell<Result<Faults, String>> = OnceCell::const_new();
    // As a task: what panics is the same for all tests, and is not tried again.
    let played = PLAYED.get_or_init(|| async { tokio::spawn(play()).await.map_err(|error| error.to_string()) }).await;
    let faults = played.as_ref().unwrap_or_else(|error| panic!("the vendors were not replayed: {error}"));
    let faults = &faults[name];
    let source = vendors().into_iter().find(|vendor| vendor.name == name).map(|vendor| vendor.source);
    assert!(faults.is_empty(), "{name} ({}):\n{}", source.unwrap_or_default(), faults.join("\n"));
}

/// A vendor while it is replayed.
struct Replayed {
    vendor: Vendor,
    replay: Replay,
    truth: Truth,
    events_seen: usize,
    faults: Vec<String>,
}

async fn play() -> Faults {
    let company = Arc::new(RwLock::new(Company::new()));
    let mut all = Vec::new();
    for vendor in vendors() {
        let replay = Replay::start(vendor.clone(), company.clone()).await;
        all.push(Replayed { vendor, replay, truth: Truth::default(), events_seen: 0, faults: Vec::new() });
    }
    let prefix = unique_prefix("vendors");
    let program = Program::with_text(&prefix, TOKEN, &configuration(&prefix, &all));
    for one in &all {
        if let Some(profile) = &one.vendor.profile {
            std::fs::write(program.file().with_file_name(format!("{}.toml", one.vendor.name)), profile).unwrap();
        }
    }
    let names: Vec<String> = all.iter().map(|one| one.vendor.name.clone()).collect();
    for (number, (title, happens)) in ROUNDS.into_iter().enumerate() {
        happens(&mut company.write().unwrap());
        let check = async { documents(&program.run(&["check", "--format", "json"]).await) };
        let (check, plan) = tokio::join!(check, plan(&program, &names));
        all.iter().for_each(|one| one.replay.requests.lock().unwrap().clear());
        let run = documents(&program.run(&["run", "--once", "--format", "json"]).await);
        let topics = ["events", "users", "groups", "memberships"].map(|suffix| program.topic(suffix));
        let records = read(services(), &topics).await;
        for one in &mut all {
            let said = [&check, &plan, &run].map(|said| said.get(&one.vendor.name).cloned().unwrap_or_default());
            let before = one.faults.len();
            one.compare(&company.read().unwrap(), said, &records, number);
            for fault in &mut one.faults[before..] {
                *fault = format!("  when {title} (round {number}): {fault}");
            }
        }
    }
    all.into_iter().map(|one| (one.vendor.name, one.faults)).collect()
}

/// `plan` of all accounts. It takes one after the other and waits for Kafka most of the time, so several are called.
async fn plan(program: &Program, names: &[String]) -> BTreeMap<String, Value> {
    const ACCOUNTS: usize = 5;
    let plans = names.chunks(ACCOUNTS).map(|names| async {
        let names = names.iter().map(String::as_str);
        let arguments: Vec<&str> = ["plan", "--format", "json"].into_iter().chain(names).collect();
        documents(&program.run(&arguments).await)
    });
    futures::future::join_all(plans).await.into_iter().flatten().collect()
}

/// All accounts. What a profile paces by is as much faster as the limits of the replay.
fn configuration(prefix: &str, all: &[Replayed]) -> String {
    let services = services();
    let mut text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\npartitions = 2\nreplication = 1\n[registry]\n\
         url = \"{}\"\n[defaults]\ninterval = \"5m\"\n[providers]\n",
        services.bootstrap, services.registry
    );
    for Replayed { vendor, .. } in all.iter().filter(|one| one.vendor.profile.is_some()) {
        writeln!(text, "{name} = \"{name}.toml\"", name = vendor.name).unwrap();
    }
    text + &accounts(all)
}

fn accounts(all: &[Replayed]) -> String {
    let mut text = String::new();
    for Replayed { vendor, replay, .. } in all {
        let Vendor { name, base, account, .. } = vendor;
        let profile = match &vendor.profile {
            Some(text) => Profile::layered(name, &[(name.clone(), text.clone())].into(), toml::Table::new()),
            None => Profile::named(name),
        };
        let profile = profile.unwrap_or_else(|error| panic!("{error}"));
        writeln!(text, "[[account]]\nname = \"{name}\"\nprovider = \"{name}\"").unwrap();
        writeln!(text, "base_url = \"{}{base}\"\n{account}", replay.address).unwrap();
        let variable = TOKEN_VARIABLE;
        match (profile.auth, &vendor.token) {
            (Auth::Oauth2, Some(token)) => {
                writeln!(text, "client_id = \"{LOGIN}\"\nclient_secret_env = \"{variable}\"").unwrap();
                writeln!(text, "token_url = \"{}{}\"", replay.address, token.path).unwrap();
            }
            (Auth::Basic, None) => {
                writeln!(text, "username = \"{LOGIN}\"\npassword_env = \"{variable}\"").unwrap();
            }
            (Auth::Bearer | Auth::ApiKey, None) => writeln!(text, "token_env = \"{variable}\"").unwrap(),
            (auth, _) => panic!("{name}: {auth:?} does not fit what its replay asks for"),
        }
        if !profile.rate_limits.is_empty() {
            text.push_str("[account.profile]\nrate_limits = [\n");
            for limit in &profile.rate_limits {
                let of = limit.of.map(|of| format!("of = \"{}\", ", operation(of))).unwrap_or_default();
                let per = (limit.per / TEMPO).as_millis();
                writeln!(text, "    {{ {of}requests = {}, per = \"{per}ms\" }},", limit.requests).unwrap();
            }
            text.push_str("]\n");
        }
    }
    text
}

fn operation(of: Operation) -> &'static str {
    match of {
        Operation::ListUsers => "list_users",
        Operation::ListGroups => "list_groups",
        Operation::GetUser => "get_user",
        Operation::GetGroup => "get_group",
        Operation::ListMembers => "list_members",
    }
}

/// The documents of a command's accounts.
fn documents(ended: &Ended) -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let accounts = document["accounts"].as_array().expect("accounts").iter();
    accounts.map(|account| (account["account"].as_str().expect("a name").to_owned(), account.clone())).collect()
}

impl Replayed {
    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    fn compare(&mut self, company: &Company, said: [Value; 3], records: &[ReadRecord], round: usize) {
        let [check, plan, run] = said;
        let before = std::mem::take(&mut self.truth);
        let truth = Truth::of(&self.vendor, company, &before);
        let expected = if round == 0 { Vec::new() } else { before.events(&truth, &self.vendor) };
        self.compare_check(&check, &truth);

        let counts = |of: &Value| [&of["users_read"], &of["groups_read"]].map(|count| count.as_i64().unwrap_or(-1));
        let groups = if self.vendor.groups { truth.groups.len() as i64 } else { 0 };
        for (command, said, fine) in [("plan", &plan, "planned"), ("run", &run, "completed")] {
            if said["result"] != fine && !(round == 0 && said["result"] == "baseline") {
                self.fault(format!("{command}: {} {} {}", said["result"], said["reason"], said["remedy"]));
            } else if counts(said)[1] != groups && self.vendor.groups {
                self.fault(format!("{command} reads {:?} users and groups", counts(said)));
            }
        }
        let requests = self.replay.requests.lock().unwrap().len();
        if let Some(most) = self.vendor.requests_max.filter(|most| requests > *most && expected.is_empty()) {
            self.fault(format!("run makes {requests} requests without a change, above {most}"));
        }
        if round == 0 {
            let [users, groups, memberships] =
                ["users", "groups", "memberships"].map(|kind| plan["baseline"][kind].as_u64().unwrap_or(0) as usize);
            let expected = (truth.users.len(), truth.groups.len(), truth.memberships.len());
            if (users, groups, memberships) != expected {
                self.fault(format!("plan has a baseline of {users}, {groups}, {memberships}, not of {expected:?}"));
            }
        }
        let planned: Vec<&Value> = plan["changes"].as_array().into_iter().flatten().collect();
        self.compare_events("plan", planned.into_iter(), &expected);
        let name = self.vendor.name.clone();
        let own = |record: &&ReadRecord| record.value["account"] == *name;
        let events: Vec<&Value> = records
            .iter()
            .filter(|record| record.topic.ends_with(".events"))
            .filter(own)
            .map(|record| &record.value)
            .collect();
        self.compare_events("run", events[self.events_seen..].iter().copied(), &expected);
        self.events_seen = events.len();
        self.compare_state(records, &truth);
        self.truth = truth;
    }

    /// It finds nothing to complain of, and no setting that would fit better than those of the profile.
    fn compare_check(&mut self, check: &Value, truth: &Truth) {
        let listed = truth.users.len();
        let findings = check["findings"].as_array().cloned().unwrap_or_default();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        for finding in &findings {
            let (result, topic, text) = (text(finding, "result"), text(finding, "topic"), text(finding, "text"));
            if result == "fail" || result == "held" || topic == "settings" {
                self.fault(format!("check: {result} {topic}: {text} {}", finding["remedy"]));
            }
        }
        if check["exit_code"] != 0 {
            self.fault(format!("check ends with {}", check["exit_code"]));
        }
        if !findings.iter().any(|finding| finding["topic"] == "users" && finding["result"] == "ok") {
            self.fault(format!("check says nothing of {listed} users"));
        }
    }

    fn compare_events<'a>(&mut self, by: &str, events: impl Iterator<Item = &'a Value>, expected: &[String]) {
        let mut lines: Vec<String> = events.map(event_line).collect();
        lines.sort();
        self.differ(&format!("{by}: event"), &lines.into_iter().collect(), &expected.iter().cloned().collect());
    }

    fn compare_state(&mut self, records: &[ReadRecord], truth: &Truth) {
        let topics: BTreeSet<&str> = records.iter().map(|record| record.topic.as_str()).collect();
        let mut lines = BTreeSet::new();
        for topic in topics.into_iter().filter(|topic| !topic.ends_with(".events")) {
            for record in compacted(records, topic).into_values() {
                if record.value["account"] == *self.vendor.name {
                    lines.insert(state_line(topic, &record.value));
                }
            }
        }
        self.differ("state", &lines, &truth.lines());
    }

    fn differ(&mut self, what: &str, found: &BTreeSet<String>, expected: &BTreeSet<String>) {
        const SHOWN: usize = 4;
        for (words, lines) in [("too many", found.difference(expected)), ("missing", expected.difference(found))] {
            let lines: Vec<&String> = lines.collect();
            for line in lines.iter().take(SHOWN) {
                self.fault(format!("{what} {words}, {} in all: {line}", lines.len()));
            }
        }
    }
}

fn state_line(topic: &str, value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or("-").to_owned();
    if topic.ends_with(".users") {
        let active = or_nothing(value["active"].as_bool());
        user_line(&text("id"), &text("user_name"), &text("display_name"), &text("email"), &active)
    } else if topic.ends_with(".groups") {
        format!("group {} {}", text("id"), text("display_name"))
    } else {
        let kind = if text("principal_type") == "user" { "" } else { " as another kind" };
        format!("membership {} in {}{kind}", text("principal_id"), text("group_id"))
    }
}
