//! The cost of one page: JSON of a permitted size that would take many times its size once it is parsed.

use scimtail::directory::{ReasonCode, Status};
use std::io::Write;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::script::{Effect, GROUPS, Target, USERS, on};
use super::world::HostileWorld;

/// Each page; a quarter of the limit of a body, which shows the same in less time.
const BODY: usize = 16 << 20;
/// Memory that one page may take beyond the process's memory before: its body while that grows, and the rows made of
/// it.
const BUDGET: usize = 7 * BODY;

/// Number of the page, if this test runs in a separate process: only there does the peak belong to it.
const ALONE: &str = "SCIMTAIL_TEST_PAGE";
const NAME: &str = "hostile::limits::g11_no_page_takes_many_times_its_size_in_memory";

#[test]
fn g11_no_page_takes_many_times_its_size_in_memory() {
    if let Ok(number) = std::env::var(ALONE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
        return runtime.block_on(page(&amplifiers()[number.parse::<usize>().expect("a number")]));
    }
    let this = std::env::current_exe().expect("the path of this program");
    for number in 0..amplifiers().len() {
        let mut alone = Command::new(&this);
        let ended =
            alone.args([NAME, "--exact", "--nocapture"]).env(ALONE, number.to_string()).output().expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && out.contains("1 passed"), "{out}\n{err}");
        println!("{}", out.lines().find(|line| line.contains("MiB")).unwrap_or_default());
    }
}

/// Most memory this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what a process takes");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line for the peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// `head`, then `unit` again and again, then `tail`; compressed, because only the reader shall hold it whole.
fn repeated(head: &str, unit: &str, tail: &str) -> Effect {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut write = |text: &str| encoder.write_all(text.as_bytes()).expect("memory can be written");
    write(head);
    let block = unit.repeat(1 + 4_096 / unit.len());
    (0..(BODY - head.len() - tail.len()) / block.len()).for_each(|_| write(&block));
    write(tail);
    Effect::body(encoder.finish().expect("memory can be written"))
}

/// A page that is small on the wire and large once it is read, and the outcome of its sync.
struct Amplifier {
    target: Target,
    head: String,
    unit: &'static str,
    tail: &'static str,
    /// `None`: it completes.
    code: Option<&'static str>,
}

fn amplifiers() -> Vec<Amplifier> {
    let list = r#"{"totalResults":1,"Resources":["#;
    let user = |attribute: &str| format!(r#"{{"totalResults":1,"Resources":[{{"id":"u00",{attribute}"#);
    let group = r#"{"totalResults":1,"Resources":[{"id":"g1","members":["#;
    let extension = r#""urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"#;
    let no_list = Some("not_a_list_response");
    let all = [
        (USERS, list.to_owned(), "0,", "0]}", no_list),
        (USERS, list.to_owned(), r#"{"id":"x"},"#, "{}]}", no_list),
        (USERS, "{".to_owned(), r#""":0,"#, r#""":0}"#, no_list),
        (USERS, r#"{"schemas":["#.to_owned(), r#""","#, r#"""]}"#, no_list),
        (USERS, user(""), r#""":0,"#, r#""":0}]}"#, None),
        (USERS, user(""), r#""title":0,"#, r#""":0}]}"#, None),
        (USERS, user(r#""nickName":"#), "[", "", no_list),
        (GROUPS, group.to_owned(), "{},", "{}]}]}", None),
        (GROUPS, group.to_owned(), r#"{"value":1},"#, "{}]}]}", None),
        (GROUPS, group.to_owned(), r#"{"value":"u00","type":[0,0,0,0,0,0,0,0]},"#, r#"{"value":"u00"}]}]}"#, None),
        (USERS, user(r#""emails":["#), "0,", "0]}]}", None),
        (USERS, user(r#""roles":["#), r#"{"a":[]},"#, "0]}]}", None),
        (USERS, user(r#""title":{"#), r#""a":1,"#, r#""a":1}}]}"#, None),
        (USERS, user(extension), r#""a":1,"#, r#""a":1}}]}"#, None),
        (USERS, user(r#""userName":""#), r"\u0041", "\"}]}", None),
    ];
    all.map(|(target, head, unit, tail, code)| Amplifier { target, head, unit, tail, code }).into()
}

async fn page(Amplifier { target, head, unit, tail, code }: &Amplifier) {
    let mut world = HostileWorld::baseline_with(1, "trust_total = false").await;
    world.world.account_mut().limits.min_losses = 1_000;
    let page = repeated(head, unit, tail);
    world.server.script([on(*target).page(1).then(page).then(Effect::Header("content-encoding", "gzip".into()))]);
    let before = peak();
    let status = world.sync().await;
    let grown = peak().saturating_sub(before);
    println!("{} MiB for {head}{unit}… {:?}", grown >> 20, status.reason);
    match code {
        Some(code) => assert_eq!(status.reason_code.as_ref().map(ReasonCode::as_str), Some(*code)),
        None => assert_eq!(status.status, Status::Completed, "{:?}", status.reason),
    }
    assert!(grown < BUDGET, "{head}{unit} took {} MiB", grown >> 20);
    assert!(!world.lines().iter().any(|line| line.contains("removed")), "{:?}", world.lines());
    world.server.script([]);
    world.completed().await;
    world.assert_state_is_the_truth();
}
