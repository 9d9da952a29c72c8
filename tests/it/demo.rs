//! `scimtail demo` as a person runs it: the story on a pipe and on a narrow terminal, how it ends, and the directories
//! alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, test_kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use unicode_width::UnicodeWidthStr;

use crate::program::{Ended, Program};

const COLUMNS: u16 = 60;
const CHAPTERS: usize = 7;
/// What each chapter claims, in the order of the story.
const CLAIMS: [&str; 7] = [
    "events of acme-stripe since then: 0.",
    "user.removed: ",
    "events of acme-chargebee since the list was short: 0.",
    "user.added: 60, membership.added: 60; ",
    " missing 0, twice 0.",
    "users listed: ",
    "the compacted topics equal the directories",
];

fn program() -> Program {
    Program::with_text("none", "unused", "")
}

/// The number behind `before`.
fn number(text: &str, before: &str) -> usize {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("`{before}` is missing in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind `{before}` in {text}"))
}

/// One line of all words: a narrow terminal breaks sentences.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file_of(out: &str) -> PathBuf {
    out.split("configuration").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("the configuration").into()
}

/// Every process that the story names.
fn processes(out: &str) -> Vec<Pid> {
    let words = joined(out);
    let named = words.split("(pid ").skip(1).map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Pid::from_raw(digits.parse().expect("a process id")).expect("a process id")
    });
    named.collect()
}

/// Asserts that the story was told to its end and that nothing of it stays.
fn is_told(out: &str) {
    let words = joined(out);
    for chapter in 1..=CHAPTERS {
        assert!(out.lines().any(|line| line.starts_with(&format!("{chapter}. "))), "chapter {chapter}: {out}");
    }
    for claim in CLAIMS {
        assert!(words.contains(claim), "`{claim}`: {out}");
    }
    assert!(!out.contains("NOT SO"), "{out}");
    // What is claimed is counted: the parts agree with each other.
    let vanished = number(&words, "until a person releases it ");
    assert_eq!(number(&words, "user.removed: "), vanished, "{out}");
    assert!(out.contains("--hold "), "{out}");
    assert!(number(&words, "Their ") >= 60, "the killed transaction had records: {out}");
    assert_eq!(words.matches(" missing 0, twice 0.").count(), 2, "of both accounts: {out}");
    let then = number(&words, "users listed: ");
    assert_eq!(number(&words, "Now it has "), then - vanished, "{out}");
    assert!(words.contains("some that the list leaves out still answer one by one"), "{out}");
}

fn nothing_stays(out: &str, file: &std::path::Path) {
    let processes = processes(out);
    assert_eq!(processes.len(), 2, "one was killed, one was started again: {out}");
    for process in processes {
        assert!(test_kill_process(process).is_err(), "{process:?} still runs");
    }
    assert!(!file.parent().expect("a folder").exists(), "the folder of the demo is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_is_told_on_a_pipe_and_leaves_nothing_behind() {
    let demo = program().run(&["demo", "--seed", "11", "--interval", "1s"]).await;
    assert_eq!(demo.code, 0, "{demo:?}");
    is_told(&demo.out);
    assert!(!demo.out.contains('\u{1b}'), "a pipe gets plain text");
    let last = demo.out.lines().last().expect("a line");
    assert!(last.contains("replay: ") || demo.out.contains("replay: "), "{}", demo.out);
    nothing_stays(&demo.out, &file_of(&demo.out));
}

/// A program on a terminal of so many columns, and the terminal's other side.
fn on_terminal(mut command: Command, columns: u16) -> (Child, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&controller, size).expect("its size");
    let name = ptsname(&controller, Vec::new()).expect("its name");
    let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
    let child = command.stdout(terminal).stderr(Stdio::null()).spawn().expect("it starts");
    (child, File::from(controller))
}

/// Reads what is shown until it is `enough`, or to the end.
fn shown(terminal: &mut File, enough: fn(&str) -> bool) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    // Once no process has the other side open, Linux ends reads of a terminal with an error.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..read]);
        if enough(&String::from_utf8_lossy(&bytes)) {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_narrow_terminal_rows_are_cut_and_the_commands_work_until_ctrl_c() {
    let program = program();
    let mut command = program.command(&["demo", "--seed", "12", "--interval", "1s"]);
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
    let (mut child, mut terminal) = on_terminal(command, COLUMNS);
    let demo = pid(&child);
    let reading = tokio::task::spawn_blocking(move || {
        // The addresses come last.
        let told = shown(&mut terminal, |told| {
            let end = told.split("Try in another terminal").nth(1);
            end.is_some_and(|end| end.contains("scimtail.toml\r\n\r\n"))
        });
        (told, terminal)
    });
    let (told, mut terminal) = reading.await.expect("it was read");
    assert!(told.contains('\u{1b}'), "a terminal has colours");
    let plain = anstream::adapter::strip_str(&told).to_string().replace('\r', "");
    is_told(&plain);
    let file = file_of(&plain);
    for line in plain.lines() {
        let whole = line.starts_with("$ ") || line.contains("configuration") || line.contains("http://");
        assert!(whole || line.width() <= usize::from(COLUMNS), "`{line}` takes {} columns", line.width());
    }
    assert!(plain.lines().any(|line| line.ends_with('…')), "some row is cut: {plain}");

    // The commands, as they are printed.
    let commands: Vec<&str> = plain
        .split("Try in another terminal")
        .nth(1)
        .expect("the end")
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    assert_eq!(commands.len(), 3, "{plain}");
    for printed in commands {
        let mut words: Vec<&str> = printed.split(' ').skip(1).collect();
        assert_eq!(words[..2], ["--config", file.to_str().expect("UTF-8")], "{printed}");
        if words.contains(&"tail") {
            // It would follow for ever.
            words.extend(["--from", "beginning", "--exit"]);
        }
        let ended = program.run(&words).await;
        assert!(ended.code == 0 && ended.out.contains("acme-"), "{printed}: {ended:?}");
    }

    kill_process(demo, Signal::INT).expect("it runs");
    let rest = tokio::task::spawn_blocking(move || shown(&mut terminal, |_| false)).await.expect("it was read");
    let rest = anstream::adapter::strip_str(&rest).to_string();
    assert!(joined(&rest).contains("the compacted topics equal the directories"), "{rest}");
    assert!(child.wait().expect("it ended").success());
    nothing_stays(&plain, &file);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_the_middle_of_the_story_ends_it_and_no_color_is_honoured() {
    let program = program();
    let mut command = program.command(&["demo", "--seed", "13"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let (mut child, mut terminal) = on_terminal(command, 100);
    let demo = pid(&child);
    let told = tokio::task::spawn_blocking(move || {
        let begun = shown(&mut terminal, |told| told.contains("2. "));
        kill_process(demo, Signal::INT).expect("it runs");
        begun + &shown(&mut terminal, |_| false)
    });
    let told = told.await.expect("it was read");
    assert!(child.wait().expect("it ended").success());
    assert!(!told.contains('\u{1b}'), "{told}");
    let service = processes(&told)[0];
    assert!(test_kill_process(service).is_err(), "the service still runs");
    assert!(!file_of(&told).parent().expect("a folder").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_a_demo_that_is_killed_ends_too() {
    let program = program();
    let mut child = program.spawn(&["demo", "--seed", "14"]);
    let out = child.stdout.take().expect("it is piped");
    let ended = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        let mut lines = BufReader::new(out).lines();
        while !told.contains("baseline") {
            told += &(lines.next().expect("it goes on").expect("UTF-8") + "\n");
        }
        let service = processes(&told)[0];
        let watched = pidfd_open(service, PidfdFlags::empty()).expect("the service runs");
        child.kill().expect("it runs");
        child.wait().expect("it ended");
        let mut asked = [rustix::event::PollFd::new(&watched, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        let ended = rustix::event::poll(&mut asked, Some(&wait)).expect("it can be waited for");
        std::fs::remove_dir_all(file_of(&told).parent().expect("a folder")).expect("SIGKILL leaves the folder");
        ended
    });
    assert_eq!(ended.await.expect("it was read"), 1, "the service still runs after 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directories_alone_are_a_service_with_the_given_tokens() {
    let program = program();
    let mut command =
        program.command(&["demo", "directories", "--listen", "127.0.0.1:0", "--interval", "1h", "--seed", "1"]);
    command.env("STRIPE_SCIM_TOKEN", "one").env("CHARGEBEE_SCIM_TOKEN", "two");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut snippet = String::new();
    while !snippet.contains("CHARGEBEE_SCIM_TOKEN") {
        snippet += &(lines.next().expect("it goes on").expect("UTF-8") + "\n");
    }
    assert!(snippet.contains("made up"), "{snippet}");
    let services = "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[registry]\nurl = \"http://127.0.0.1:1\"\n";
    let read = scimtail::config::Config::parse("snippet", &format!("{services}{snippet}")).expect("a configuration");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (account, token, users) in [(&read.accounts[0], "one", 25), (&read.accounts[1], "two", 40)] {
        let ask = |token: &'static str| client.get(format!("{}/Users", account.base_url)).bearer_auth(token).send();
        let answer = ask(token).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", account.base_url);
        let list: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(list["totalResults"], users);
        assert_eq!(ask("wrong").await.expect("an answer").status(), 401);
    }
    kill_process(pid(&child), Signal::TERM).expect("it runs");
    let output =
        tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ended")).await.expect("waited");
    assert_eq!(Ended::from(output).code, 0);
}
