//! `docs/commands.md` is generated from the command line itself, so that it has each command and each option.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};
use expect_test::expect_file;
use scimtail::cli::Arguments;

const INTRODUCTION: &str = "\
<!-- Made by `UPDATE_EXPECT=1 cargo test --test it commands_page`; do not edit. -->

# Commands

`scimtail [OPTIONS] COMMAND`. Data goes to standard output, everything else to standard error. `scimtail help COMMAND`
prints what is here.

";

const EXIT_CODES: &str = "
## Exit codes

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | usage: an argument is wrong |
| 3 | `plan --detailed-exitcode`: a sync would publish changes |
| 69 | a service or a directory is unreachable: try later |
| 75 | held, paused, or the state is not complete: look, or try later |
| 78 | configuration: something answered and said no, or a person has to act |

One cause has one exit code in all commands. With several accounts the gravest counts, in the order 78, 1, 75, 69, 3, 0.
";

/// The text of a help without the lines that clap adds, which depend on the environment.
fn words(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| text.to_string().replace('\n', " ")).unwrap_or_default()
}

fn name(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let takes_value = arg.get_action().takes_values();
    match (arg.get_long(), value) {
        (Some(long), Some(value)) if takes_value => format!("--{long} {value}"),
        (Some(long), _) => format!("--{long}"),
        (None, value) => value.unwrap_or_else(|| arg.get_id().to_string().to_uppercase()),
    }
}

fn row(arg: &Arg) -> String {
    let mut text = words(arg.get_help().or(arg.get_long_help()));
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match words(value.get_help()).as_str() {
            "" => format!("`{}`", value.get_name()),
            help => format!("`{}` ({help})", value.get_name()),
        })
        .collect();
    if !values.is_empty() {
        write!(text, ": {}", values.join(", ")).unwrap();
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, " [default: {}]", defaults.join(" ")).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(text, " [environment: `{}`]", variable.to_string_lossy()).unwrap();
    }
    format!("| `{}` | {} |\n", name(arg), text.replace('|', "\\|"))
}

fn rows<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let rows: String = args.filter(|arg| !arg.is_hide_set()).map(row).collect();
    if rows.is_empty() { String::new() } else { format!("\n| argument | what |\n|---|---|\n{rows}") }
}

/// A command, and the commands inside it.
fn section(page: &mut String, path: &str, command: &Command) {
    let path = format!("{path} {}", command.get_name());
    let mut shown = command.clone().bin_name(path.clone());
    let usage = shown.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let about = words(command.get_long_about().or(command.get_about()));
    write!(page, "\n## `{path}`\n\n{about}.\n\n```text\n{usage}\n```\n").unwrap();
    let is_own = |arg: &&Arg| !arg.is_global_set() && !["help", "version"].contains(&arg.get_id().as_str());
    page.push_str(&rows(command.get_arguments().filter(is_own)));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set()) {
        section(page, &path, inner);
    }
}

fn page() -> String {
    let command = Arguments::command();
    let commands: Vec<&Command> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| command | what it does |\n|---|---|\n");
    for inner in &commands {
        let name = inner.get_name();
        writeln!(page, "| [`{name}`](#scimtail-{name}) | {} |", words(inner.get_about())).unwrap();
    }
    page.push_str(EXIT_CODES);
    page.push_str("\n## Options of every command\n");
    page.push_str(&rows(command.get_arguments().filter(|arg| arg.is_global_set())));
    for inner in commands {
        section(&mut page, "scimtail", inner);
    }
    page
}

#[test]
fn the_page_of_the_commands_has_what_the_command_line_takes() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md")].assert_eq(&page());
}

/// The table of the exit codes is prose, so that it can say more than `--help`.
#[test]
fn the_page_of_the_commands_has_each_exit_code() {
    let table = scimtail::cli::Exit::table();
    for code in table.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()) {
        assert!(EXIT_CODES.contains(&format!("\n| {code} |")), "{code}");
    }
}
