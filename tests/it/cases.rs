//! Behaviour of SCIM servers and of Okta, as their users and their sources describe it, and what scimtail makes of it:
//! `tests/cases`.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use crate::python::python;
use crate::services::services;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");

/// Runs a script of the cases.
fn script(name: &str, prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(python());
    command.arg(format!("{DIRECTORY}/{name}"));
    prepare(&mut command);
    command.output().expect("the Python of the tests runs")
}

fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "it ends with {}:\n{out}{err}", output.status);
    // The output also names the cases that were left out.
    println!("{out}");
}

#[test]
fn whatever_habits_a_server_has_a_sync_ends_right_and_check_and_plan_agree_with_it() {
    let services = services();
    assert_success(&script("run_cases.py", |command| {
        command
            .arg("--agree")
            .env("SCIMTAIL", env!("CARGO_BIN_EXE_scimtail"))
            .env("KAFKA_BOOTSTRAP", &services.bootstrap)
            .env("SCHEMA_REGISTRY_URL", &services.registry);
    }));
}

#[test]
fn where_check_or_plan_disagrees_with_a_sync_it_is_noticed() {
    assert_success(&script("doctored.py", |_| {}));
}

#[test]
fn every_case_has_a_name_of_its_own_and_says_where_it_is_from() {
    let mut names = BTreeSet::new();
    for file in ["cases.json", "variants.json", "okta.json"] {
        let text = std::fs::read_to_string(format!("{DIRECTORY}/{file}")).unwrap();
        let content: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for case in content["cases"].as_array().expect("a list of cases") {
            let stated = |key: &str| case[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {file}: {case}"));
            assert!(names.insert(stated("id").to_owned()), "two cases are called {}", stated("id"));
            for key in ["kind", "does", "source"] {
                assert!(!stated(key).trim().is_empty(), "{} has an empty `{key}`", stated("id"));
            }
            assert!(stated("source").ends_with('.'), "the source of {} is not a sentence", stated("id"));
        }
    }
    assert!(!names.is_empty(), "there are cases");
}
