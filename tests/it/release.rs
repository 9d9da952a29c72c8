//! What a release brings beside the program: its version, completions and manual pages, made from the same definitions
//! as the command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{Ended, Program};

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A folder without a configuration, because none of this needs one.
fn program() -> Program {
    let program = Program::with_text("none", "none", "");
    std::fs::remove_file(program.file()).expect("there is no configuration");
    program
}

async fn said(program: &Program, arguments: &[&str]) -> String {
    let ended = program.run(arguments).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}: {ended:?}");
    ended.out
}

/// The names of the commands, as `--help` lists them.
async fn commands(program: &Program) -> BTreeSet<String> {
    let help = said(program, &["--help"]).await;
    let list = help.split("Commands:\n").nth(1).expect("a list of commands").split("\n\n").next().expect("its end");
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let names: BTreeSet<String> = names.map(str::to_owned).filter(|name| name != "help").collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// The long options of a command, as its `--help` lists them.
fn options(help: &str) -> BTreeSet<String> {
    let words = help.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(|line| {
        let option = line.split_whitespace().find(|word| word.starts_with("--"))?;
        Some(option.trim_end_matches(',').to_owned())
    });
    words.collect()
}

#[tokio::test]
async fn the_short_version_is_one_line_and_the_long_one_has_commit_librdkafka_and_schemas() {
    let program = program();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(said(&program, &["-V"]).await, format!("scimtail {version}\n"));
    let long = said(&program, &["--version"]).await;
    let mut lines = long.lines();
    assert_eq!(lines.next(), Some(format!("scimtail {version}").as_str()));
    let commit = lines.next().and_then(|line| line.strip_prefix("commit ")).expect("a commit");
    assert_eq!(commit, env!("SCIMTAIL_COMMIT"), "program and test are of one build");
    // It is a commit, though not always the newest one, if an older build is tested.
    let known = |commit: &str| {
        let git = Command::new("git").current_dir(root()).args(["cat-file", "-t", commit]).output();
        git.expect("git runs").stdout == b"commit\n"
    };
    // A debug build has none, unless it is made from a package.
    assert!(commit == "unknown" || (commit.len() >= 40 && known(commit)), "{commit}");
    let librdkafka = lines.next().and_then(|line| line.strip_prefix("librdkafka ")).expect("a version");
    assert!(librdkafka.split('.').all(|part| part.parse::<u32>().is_ok()), "{librdkafka}");
    // The newest section of the changelog that lists schemas lists all of them.
    let changelog = text("CHANGELOG.md");
    let section = changelog.split("### Schemas\n").nth(1).expect("fingerprints").split("\n#").next().expect("an end");
    let listed = section.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: ")).map(|(names, _)| {
        let (name, fingerprint) = names.split_once("` `").expect("a name and a fingerprint");
        format!("schema {name} {fingerprint}")
    });
    let listed: Vec<String> = listed.collect();
    assert_eq!(listed.len(), 6);
    assert_eq!(lines.collect::<Vec<_>>(), listed);
}

#[tokio::test]
async fn the_completions_of_each_shell_name_every_command() {
    let program = program();
    let commands = commands(&program).await;
    for shell in SHELLS {
        let script = said(&program, &["completions", shell]).await;
        let words: BTreeSet<&str> =
            script.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| !word.is_empty()).collect();
        let missing: Vec<_> = commands.iter().filter(|name| !words.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
    }
    let unknown = program.run(&["completions", "cmd"]).await;
    unknown.refused(2, &["possible values: bash, elvish, fish, powershell, zsh"]);
}

#[tokio::test]
async fn bash_completes_commands_and_their_options() {
    let program = program();
    let script = program.file().with_file_name("scimtail.bash");
    std::fs::write(&script, said(&program, &["completions", "bash"]).await).expect("it is written");
    let bash = |code: &str| {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "-c", code, "bash"]).arg(&script).stdin(Stdio::null());
        let ended = Ended::from(command.output().expect("bash runs"));
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{code}: {ended:?}");
        ended.out
    };
    bash("bash -n \"$1\"");
    let completed = |words: &str, last: usize| {
        bash(&format!(
            "source \"$1\"; COMP_WORDS=({words}); COMP_CWORD={last}; _scimtail scimtail \"${{COMP_WORDS[{last}]}}\" \
             \"${{COMP_WORDS[{last} - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ))
    };
    assert_eq!(completed("scimtail ret", 1), "retire\n");
    assert_eq!(completed("scimtail run --on", 2), "--once\n");
    assert_eq!(completed("scimtail completions z", 2), "zsh\n");
}

#[tokio::test]
async fn each_command_has_a_manual_page_with_all_of_its_options() {
    let program = program();
    let folder = program.file().with_file_name("share/man1");
    let name = folder.to_str().expect("UTF-8");
    let written = said(&program, &["man", name]).await;
    let commands = commands(&program).await;
    let page = |name: &str| folder.join(format!("{name}.1"));
    let expected: BTreeSet<PathBuf> =
        commands.iter().map(|command| page(&format!("scimtail-{command}"))).chain([page("scimtail")]).collect();
    assert_eq!(written.lines().map(PathBuf::from).collect::<BTreeSet<_>>(), expected);
    let read = |path: &Path| std::fs::read_to_string(path).expect("a page").replace("\\-", "-");
    for command in &commands {
        let help = said(&program, &[command, "--help"]).await;
        let text = read(&page(&format!("scimtail-{command}")));
        assert!(text.contains(&format!(".SH NAME\nscimtail-{command} - ")), "{text}");
        for option in options(&help) {
            assert!(text.contains(&option), "{command}: {option}");
        }
    }
    let main = read(&page("scimtail"));
    assert!(
        main.contains("Exit codes: 0 done") && main.contains(".SH NOTES") && main.contains(".SH COMMANDS"),
        "{main}"
    );
    let version = format!(".SH VERSION\nv{}\n", env!("CARGO_PKG_VERSION"));
    assert!(main.contains(&version), "a page does not change with each commit: {main}");
    // The same pages again, byte for byte.
    let second = program.file().with_file_name("second");
    said(&program, &["man", second.to_str().expect("UTF-8")]).await;
    for path in &expected {
        let other = second.join(path.file_name().expect("a name"));
        assert_eq!(std::fs::read(path).expect("a page"), std::fs::read(&other).expect("a page"), "{}", other.display());
    }
}

#[tokio::test]
async fn pages_that_cannot_be_written_are_refused_in_one_line() {
    let program = program();
    std::fs::write(program.file().with_file_name("taken"), "").expect("a file");
    program.run(&["man", "taken"]).await.refused(1, &["taken cannot be written (", "; → "]);
}
