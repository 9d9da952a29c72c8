//! The page as HTML. Every text is escaped by `maud`; texts of directories are made safe by [`clean`] before.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use crate::directory::{HoldId, Losses};
use crate::duration::in_words;
use crate::mapping::text::{clean, clock};
use crate::overview::{Facts, HOURS, Line, Owner, Recent, Standing, summary};
use crate::progress::{Done, Work};

/// What one rendering shows.
pub struct View<'a> {
    pub standings: &'a [Standing],
    pub facts: &'a Facts,
    pub progress: &'a [(Work, Done)],
    /// Milliseconds since 1970-01-01 UTC.
    pub now: i64,
}

/// Seconds after which a browser without JavaScript loads the page again.
const RELOAD_S: u32 = 30;

/// The whole document.
pub fn document(view: &View<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(view.standings)) }
                // Without it a browser asks for /favicon.ico, which there is not.
                link rel="icon" type="image/svg+xml" href="icon.svg";
                link rel="stylesheet" href="page.css";
                script src="page.js" defer {}
                noscript { meta http-equiv="refresh" content=(RELOAD_S); }
            }
            body {
                header { h1 { "scimtail" } p #live { "Times are in UTC." } }
                (main(view))
            }
        }
    }
}

/// What a page that is live gets: its title, and what changes while people look.
pub fn fragment(view: &View<'_>) -> Markup {
    html! { title { (title(view.standings)) } (main(view)) }
}

fn main(view: &View<'_>) -> Markup {
    let recent = view.facts.recent.as_ref();
    html! {
        main {
            p #summary role="status" { (summary(view.standings)) }
            @if let Some(problem) = &view.facts.problem {
                p #problem .problem role="alert" { "What follows may be old: " (clean(problem)) }
            } @else if view.facts.seen.is_none() {
                p #problem { "The topics are still being read." }
            }
            (under_way(view.progress))
            (accounts(view, recent))
            @if let Some(recent) = recent { (changes(recent)) }
        }
    }
}

fn title(standings: &[Standing]) -> String {
    match standings.iter().filter(|standing| standing.needs_person).count() {
        0 => "scimtail".to_owned(),
        count => format!("({count}) scimtail"),
    }
}

fn under_way(progress: &[(Work, Done)]) -> Markup {
    html! {
        @if !progress.is_empty() {
            section #progress aria-labelledby="progress-title" {
                h2 #progress-title { "Under way on this instance" }
                ul {
                    @for (index, (work, done)) in progress.iter().enumerate() {
                        @let name = match work {
                            Work::Restore { partition } => format!("restore of shard {partition}"),
                            Work::Sync { account } => format!("sync of {account}"),
                        };
                        li {
                            label for={ "work-" (index) } { (name) }
                            " "
                            @match done.total.filter(|total| *total > 0) {
                                Some(total) => {
                                    progress #{ "work-" (index) } max=(total) value=(done.done.min(total)) {}
                                    " " (grouped(done.done)) " of " (grouped(total)) " " (done.what)
                                }
                                None => {
                                    progress #{ "work-" (index) } {}
                                    " " (grouped(done.done)) " " (done.what)
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn accounts(view: &View<'_>, recent: Option<&Recent>) -> Markup {
    let heads =
        ["Account", "Status", "Last completed", "Next", "Users", "Groups", "Memberships", "Changes in 24 h", "Owner"];
    // The roles say again what the elements are, because the style lays them out in another way on a narrow screen.
    html! {
        section #accounts aria-labelledby="accounts-title" {
            h2 #accounts-title { "Accounts" }
            table role="table" aria-labelledby="accounts-title" {
                thead role="rowgroup" { tr role="row" { @for head in heads { th scope="col" role="columnheader" { (head) } } } }
                tbody role="rowgroup" {
                    @for standing in view.standings {
                        tr role="row" #{ "account-" (standing.account) } {
                            th scope="row" role="rowheader" { (standing.account) span .provider { " " (standing.provider) } }
                            td role="cell" data-head=(heads[1]) { (label(standing)) }
                            td role="cell" data-head=(heads[2]) { (completed(standing, view.now)) }
                            td role="cell" data-head=(heads[3]) { (next(standing, view.now)) }
                            @let counts = standing.counts;
                            td role="cell" .number data-head=(heads[4]) { (number(counts.map(|counts| counts.users))) }
                            td role="cell" .number data-head=(heads[5]) { (number(counts.map(|counts| counts.groups))) }
                            td role="cell" .number data-head=(heads[6]) { (number(counts.map(|counts| counts.memberships))) }
                            td role="cell" data-head=(heads[7]) {
                                @if let Some(recent) = recent { (chart(&recent.hours(&standing.account, view.now))) }
                            }
                            td role="cell" data-head=(heads[8]) { (owner(&standing.owner)) }
                        }
                        @if has_more(standing) {
                            tr role="row" .more #{ "more-" (standing.account) } {
                                td role="cell" colspan=(heads.len()) { (more(standing)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn label(standing: &Standing) -> Markup {
    let name = standing.label.as_str();
    html! {
        span class={ "label label-" (name.to_lowercase()) } { (name) }
        @if standing.needs_person { span .person { " needs a person" } }
    }
}

/// True if there is anything to say of the account beside its row.
fn has_more(standing: &Standing) -> bool {
    let Standing { reason, steps, findings, not_included, .. } = standing;
    reason.is_some() || !steps.is_empty() || !findings.is_empty() || !not_included.is_empty()
}

/// What is wrong, the numbers of a hold, the commands, and what SCIM does not show.
fn more(standing: &Standing) -> Markup {
    html! {
        details open[standing.needs_person] #{ "details-" (standing.account) } {
            summary { @if standing.needs_person { "What to do about " } @else { "More about " } (standing.account) }
            @if let Some(reason) = &standing.reason { p { (clean(reason)) } }
            @if let Some(hold) = &standing.hold { (numbers(hold)) }
            @for finding in &standing.findings { p .finding { "Note: " (clean(finding)) } }
            @if !standing.not_included.is_empty() {
                p .finding { "Complete for what SCIM shows; not included: " (clean(&standing.not_included.join(", "))) }
            }
            @if !standing.steps.is_empty() {
                dl .steps {
                    @for step in &standing.steps { div { dt { (step.purpose) } dd { code { (step.command) } } } }
                }
            }
        }
    }
}

/// What a held change would take away, without what it would not.
fn numbers(hold: &HoldId) -> Markup {
    let Losses { users, groups, memberships, disabled, attributes, added } = hold.losses;
    let numbers = [
        (users, "users removed"),
        (groups, "groups removed"),
        (memberships, "memberships removed"),
        (disabled, "users disabled"),
        (attributes, "attributes lost"),
        (added, "users and groups added"),
    ];
    html! {
        ul .numbers {
            @for (count, what) in numbers.into_iter().filter(|(count, _)| *count > 0) {
                li { strong { (grouped(count)) } " " (what) }
            }
        }
    }
}

fn completed(standing: &Standing, now: i64) -> Markup {
    match standing.completed {
        None => html! { "never" },
        Some((sync, at)) => html! { (ago(at, now)) span .provider { " (sync " (sync) ")" } },
    }
}

fn next(standing: &Standing, now: i64) -> Markup {
    match standing.next_at {
        None => html! { "–" },
        Some(at) if at <= now => html! { time datetime=(machine(at)) title=(exact(at)) { "due" } },
        Some(at) => html! { time datetime=(machine(at)) title=(exact(at)) { "in " (in_words(between(now, at))) } },
    }
}

fn ago(at: i64, now: i64) -> Markup {
    html! { time datetime=(machine(at)) title=(exact(at)) { (in_words(between(at, now))) " ago" } }
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn exact(millis: i64) -> String {
    format!("{} UTC", clock(millis))
}

/// RFC 3339.
fn machine(millis: i64) -> String {
    format!("{:.0}", jiff::Timestamp::from_millisecond(millis).unwrap_or_default())
}

fn owner(owner: &Owner) -> Markup {
    match owner {
        Owner::Instance(host) => html! { (clean(host)) },
        Owner::Unassigned | Owner::NoInstance => html! { "none" },
        Owner::Unknown => html! { "not known" },
    }
}

/// A count of what was read; `None` inside: not read.
fn number(count: Option<Option<i64>>) -> String {
    match count {
        None => "–".to_owned(),
        Some(None) => "not read".to_owned(),
        Some(Some(count)) => grouped(count.unsigned_abs()),
    }
}

/// `1 234 567`, with spaces that do not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Width of a bar of the chart, and of the space behind it, in units of the picture.
const BAR: usize = 3;
const STEP: usize = 4;
/// Height of the highest bar.
const HEIGHT: u64 = 20;

/// Bars for the changes of each hour, the present one at the right. Each chart has a scale of its own.
fn chart(hours: &[u64; HOURS]) -> Markup {
    let (total, most) = (hours.iter().sum::<u64>(), hours.iter().copied().max().unwrap_or(0));
    let words = match total {
        0 => "no change in the last 24 hours".to_owned(),
        _ => format!("{total} changes in the last 24 hours, at most {most} in one hour"),
    };
    html! {
        svg .chart role="img" aria-label=(words) viewBox={ "0 0 " (HOURS * STEP) " " (HEIGHT + 1) } width=(HOURS * STEP) height=(HEIGHT + 1) {
            title { (words) }
            line .axis x1="0" y1={ (HEIGHT) ".5" } x2=(HOURS * STEP) y2={ (HEIGHT) ".5" } {}
            @for (index, count) in hours.iter().enumerate().filter(|(_, count)| **count > 0) {
                @let height = (count * HEIGHT / most.max(1)).max(1);
                rect x=(index * STEP) y=(HEIGHT - height) width=(BAR) height=(height) {}
            }
        }
        " "
        span .number { @if total > 0 { (grouped(total)) } }
    }
}

fn changes(recent: &Recent) -> Markup {
    let heads = ["Time", "Account", "Event", "Of what", "Details"];
    html! {
        section #changes aria-labelledby="changes-title" {
            h2 #changes-title { "Last changes" }
            @if recent.newest().next().is_none() { p { "No change in the last 24 hours." } } @else {
                table role="table" aria-labelledby="changes-title" {
                    thead role="rowgroup" { tr role="row" { @for head in heads { th scope="col" role="columnheader" { (head) } } } }
                    tbody role="rowgroup" { @for line in recent.newest() { (change(line, heads)) } }
                }
            }
        }
    }
}

fn change(line: &Line, heads: [&str; 5]) -> Markup {
    let kind = line.event_type.rsplit('.').next().unwrap_or_default();
    let kind = ["added", "enabled", "removed", "disabled", "updated"].into_iter().find(|known| *known == kind);
    html! {
        tr role="row" {
            td role="cell" data-head=(heads[0]) { time datetime=(machine(line.at)) { (clock(line.at)) } }
            td role="cell" data-head=(heads[1]) { (clean(&line.account)) }
            td role="cell" data-head=(heads[2]) { span class={ "event event-" (kind.unwrap_or("other")) } { (clean(&line.event_type)) } }
            // The direction of a name must not change the direction of the row.
            td role="cell" data-head=(heads[3]) { bdi { (clean(&line.who)) } }
            td role="cell" data-head=(heads[4]) { bdi { (clean(&line.details)) } }
        }
    }
}

/// What the page needs beside itself: its icon, its style, and the program that keeps it live.
pub const ICON: &str = include_str!("icon.svg");
pub const STYLE: &str = include_str!("page.css");
pub const SCRIPT: &str = include_str!("page.js");
