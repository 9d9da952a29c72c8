//! What the book in `docs/` and the README say has to hold: their lengths, their examples, their table of contents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use scimtail::cli::Arguments;
use scimtail::config::Config;
use scimtail::scim::profile::Profile;

/// A person reads the first page to its end only if it is short.
const README_LINES_MAX: usize = 150;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages below a folder, as paths from the root of the repository.
fn pages(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

/// Every Markdown file that a user reads.
fn documents() -> BTreeSet<String> {
    let mut all = pages(&root().join("docs"));
    all.extend(["README.md", "CONTRIBUTING.md", "schemas/README.md"].map(str::to_owned));
    all.extend(pages(&root().join("deploy")));
    all
}

/// The blocks of code of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    text.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines; → what is not needed first belongs into a page of docs/");
}

#[test]
fn each_page_is_in_the_table_of_contents() {
    let summary = text("docs/SUMMARY.md");
    let linked: BTreeSet<String> = summary
        .split("](")
        .skip(1)
        .map(|rest| format!("docs/{}", rest.split(')').next().unwrap().trim_start_matches("./")))
        .collect();
    let mut there = pages(&root().join("docs"));
    there.remove("docs/SUMMARY.md");
    assert_eq!(linked, there, "docs/SUMMARY.md and the pages differ");
}

/// What other programs read in TOML: tables that no configuration of scimtail has.
const OF_OTHER_PROGRAMS: [&str; 1] = ["[sources."];
/// Without these keys no configuration is whole. Examples that are about other keys leave them out.
const LEAST: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n\
                     [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"ACME_TOKEN\"\n";

/// The example with the keys that it leaves out.
fn completed(block: &str) -> Result<toml::Table, toml::de::Error> {
    let mut whole: toml::Table = block.parse()?;
    let least: toml::Table = LEAST.parse()?;
    for (section, value) in least {
        match (whole.get_mut(&section), value) {
            (None, value) => drop(whole.insert(section, value)),
            (Some(toml::Value::Table(own)), toml::Value::Table(least)) => {
                for (key, value) in least {
                    own.entry(key).or_insert(value);
                }
            }
            (Some(_), _) => {}
        }
    }
    Ok(whole)
}

/// The text of a file that an example shows in a block of its own, which begins with the name of the file.
fn shown<'a>(blocks: &[&'a str], name: &str) -> Option<&'a str> {
    blocks.iter().find(|block| block.starts_with(&format!("# {name}\n"))).copied()
}

#[test]
fn each_example_of_a_configuration_is_one_that_the_program_takes() {
    let mut tried = 0;
    for path in documents() {
        let text = text(&path);
        let blocks = blocks(&text, "toml");
        let profiles: Vec<&str> = blocks.iter().copied().filter(|block| block.contains("\ntitle = ")).collect();
        for block in &profiles {
            let files = [("shown".to_owned(), (*block).to_owned())].into();
            Profile::layered("shown", &files, toml::Table::new())
                .unwrap_or_else(|error| panic!("{path}: {error}\n{block}"));
            tried += 1;
        }
        for block in blocks.iter().filter(|block| !profiles.contains(block)) {
            if OF_OTHER_PROGRAMS.iter().any(|table| block.contains(table)) {
                continue;
            }
            // The files that `[providers]` names are beside the configuration.
            let folder = tempfile::tempdir().unwrap();
            let table = completed(block).unwrap_or_else(|error| panic!("{path}: {error}\n{block}"));
            for file in table.get("providers").and_then(toml::Value::as_table).into_iter().flatten() {
                let name = file.1.as_str().unwrap();
                let profile = shown(&blocks, name).unwrap_or("title = \"Shown elsewhere\"\n");
                std::fs::write(folder.path().join(name), profile).unwrap();
            }
            let file = folder.path().join("scimtail.toml").display().to_string();
            Config::parse(&file, &table.to_string()).unwrap_or_else(|error| panic!("{path}: {error}\n{block}"));
            tried += 1;
        }
    }
    assert!(tried >= 20, "only {tried} examples were found");
}

#[test]
fn an_example_that_is_wrong_is_refused() {
    let example = completed("[http]\nlistn = \"127.0.0.1:9464\"\n").unwrap();
    let error = Config::parse("scimtail.toml", &example.to_string()).unwrap_err();
    assert!(error.0.contains("did you mean `listen`"), "{error}");
}

/// Where a command begins in a document, and where it ends.
const BEFORE_A_COMMAND: [&str; 4] = ["`", "$ ", "exec ", "\""];
const AFTER_A_COMMAND: [char; 6] = ['`', '\n', '|', '#', '"', ','];

/// The commands that a document shows: what follows the name of the program.
fn commands(text: &str) -> Vec<&str> {
    let ends = text.match_indices("scimtail ").filter(|(at, _)| {
        let before = &text[..*at];
        BEFORE_A_COMMAND.iter().any(|mark| before.ends_with(mark))
    });
    ends.map(|(at, name)| text[at + name.len()..].split(AFTER_A_COMMAND).next().unwrap()).collect()
}

/// What is wrong with a command that a document shows.
fn complaint(line: &str, program: &Command) -> Option<String> {
    let mut command = None;
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        // The service of a compose file has the name of the program. clap itself answers for the version.
        if command.is_none() && ["scimtail", "-V", "--version"].contains(&word) {
            continue;
        }
        let Some(long) = word.strip_prefix("--") else {
            match (command.unwrap_or(program).find_subcommand(word), command) {
                (Some(inner), _) => command = Some(inner),
                // `[OPTIONS]` stands for what is not shown.
                (None, None) if word.starts_with('[') || word == "help" => return None,
                (None, None) => return Some(format!("there is no command `{word}`")),
                (None, Some(_)) => {}
            }
            continue;
        };
        let own = command.into_iter().flat_map(Command::get_arguments);
        let globals = program.get_arguments().filter(|arg| arg.is_global_set() || command.is_none());
        let Some(found) = own.chain(globals).find(|arg| arg.get_long() == Some(long)) else {
            return Some(format!("there is no option `--{long}`"));
        };
        if found.get_action().takes_values() {
            words.next();
        }
    }
    None
}

#[test]
fn each_command_that_a_document_shows_is_one_that_the_program_takes() {
    let program = Arguments::command();
    let mut tried = 0;
    let mut wrong = Vec::new();
    for path in documents() {
        let text = text(&path);
        for line in commands(&text) {
            tried += 1;
            wrong.extend(complaint(line, &program).map(|complaint| format!("{path}: scimtail {line}: {complaint}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried >= 60, "only {tried} commands were found");
    assert_eq!(complaint("release acme --holds 1", &program).as_deref(), Some("there is no option `--holds`"));
    assert_eq!(complaint("relaese acme", &program).as_deref(), Some("there is no command `relaese`"));
}
