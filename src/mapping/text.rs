//! An event as one line for people: time, account, type, principal and details.

use anstyle::{AnsiColor, Style};

use crate::avro::wire::ChangeEvent;

/// Width of the longest event type, `membership.removed`.
const TYPE_WIDTH: usize = 18;

/// `2026-11-21 12:04:31  acme-chargebee  user.disabled       j.doe@acme.com`, times in UTC.
pub fn line(event: &ChangeEvent, account_width: usize) -> String {
    let style = style(&event.event_type);
    let mut line = format!(
        "{}  {:account_width$}  {style}{:TYPE_WIDTH$}{style:#}  {}",
        clock(event.observed_at),
        event.account,
        event.event_type,
        who(event),
    );
    for part in rest(event) {
        line.push_str("   ");
        line.push_str(&part);
    }
    line
}

/// `  ~ user.updated        a.lee@acme.com      title "Analyst" → "Manager"`: a change that is not published yet.
pub fn planned(event: &ChangeEvent) -> String {
    let style = style(&event.event_type);
    let mark = match event.event_type.rsplit('.').next() {
        Some("added" | "enabled") => '+',
        Some("removed") => '-',
        Some("disabled") => '!',
        _ => '~',
    };
    let mut line = format!("  {style}{mark} {:TYPE_WIDTH$}{style:#}  {}", event.event_type, who(event));
    for part in rest(event) {
        line.push_str("   ");
        line.push_str(&part);
    }
    line
}

/// The principal's name. A group that is a member is marked as one, because members are mostly users.
pub fn who(event: &ChangeEvent) -> String {
    let name = clean(event.principal_name.as_deref().unwrap_or(&event.principal_id));
    match event.event_type.starts_with("membership.") && event.principal_type == "group" {
        true => format!("group {name}"),
        false => name,
    }
}

/// What else there is to say of the event, in parts.
pub fn rest(event: &ChangeEvent) -> Vec<String> {
    let mut parts = Vec::new();
    if event.event_type.starts_with("membership.") {
        let group = event.group_name.as_deref().or(event.group_id.as_deref()).unwrap_or_default();
        parts.push(clean(group));
    }
    if let (Some(kind), Some(name)) = (&event.entitlement_kind, &event.entitlement_name) {
        parts.push(format!("{} {}", kind.replace('_', " "), clean(name)));
    }
    match event.removal_reason.as_deref() {
        Some("not_found") if !event.event_type.starts_with("membership.") => {
            let gone =
                if event.removal_means.as_deref() == Some("deactivated") { "deactivated: vanished" } else { "gone" };
            parts.push(format!("{gone}, GET says 404"));
        }
        Some("not_found" | "absent") if event.event_type.starts_with("membership.") => {
            parts.push("goes with a removal".to_owned())
        }
        Some("absent") => parts.push("missing from every list".to_owned()),
        _ => {}
    }
    if event.event_type.ends_with(".updated") {
        for change in &event.changes {
            let side = |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), shorten);
            let short = change.attribute.rsplit(':').next().unwrap_or(&change.attribute);
            parts.push(format!("{} {} → {}", clean(short), side(&change.old_value), side(&change.new_value)));
        }
    }
    if event.event_type == "user.added" && event.user.as_ref().is_some_and(|user| user.active == Some(false)) {
        parts.push("inactive".to_owned());
    }
    if event.snapshot {
        parts.push("(baseline)".to_owned());
    }
    parts
}

fn style(event_type: &str) -> Style {
    let color = match event_type.rsplit('.').next() {
        Some("added" | "enabled") => AnsiColor::Green,
        Some("removed") => AnsiColor::Red,
        Some("disabled") => AnsiColor::Yellow,
        _ => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(color.into()))
}

/// `2026-11-21 12:04:31`, UTC. `millis` since 1970-01-01 UTC.
pub fn clock(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Makes text from a directory safe for a terminal: escapes control characters and those that change the direction.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if character.is_control() || turns {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// A JSON value cut to what fits on a line.
fn shorten(json: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let clean = clean(json);
    if clean.chars().count() <= CHARACTERS_MAX {
        return clean;
    }
    let head: String = clean.chars().take(CHARACTERS_MAX).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::wire::AttributeChange;

    fn plain(event: &ChangeEvent) -> String {
        anstream::adapter::strip_str(&line(event, 14)).to_string()
    }

    fn event(event_type: &str) -> ChangeEvent {
        ChangeEvent {
            event_type: event_type.into(),
            account: "acme-chargebee".into(),
            principal_id: "u1".into(),
            principal_name: Some("j.doe@acme.com".into()),
            observed_at: 1_795_435_471_000,
            ..ChangeEvent::default()
        }
    }

    #[test]
    fn a_line_names_when_where_what_and_who() {
        assert_eq!(
            plain(&event("user.disabled")),
            "2026-11-23 12:04:31  acme-chargebee  user.disabled       j.doe@acme.com"
        );
    }

    #[test]
    fn a_membership_names_its_group_and_entitlement() {
        let event = ChangeEvent {
            group_name: Some("CB/acme.com/ROLE/Admin".into()),
            entitlement_kind: Some("role".into()),
            entitlement_name: Some("Admin".into()),
            ..event("membership.removed")
        };
        assert!(plain(&event).ends_with("membership.removed  j.doe@acme.com   CB/acme.com/ROLE/Admin   role Admin"));
    }

    #[test]
    fn a_group_that_is_a_member_is_not_taken_for_a_user() {
        let event = ChangeEvent {
            principal_type: "group".into(),
            principal_name: Some("Everyone".into()),
            group_name: Some("Leads".into()),
            ..event("membership.removed")
        };
        assert!(plain(&event).ends_with("membership.removed  group Everyone   Leads"));
        let planned = anstream::adapter::strip_str(&planned(&event)).to_string();
        assert_eq!(planned, "  - membership.removed  group Everyone   Leads");
        let removed = ChangeEvent { event_type: "group.removed".into(), ..event };
        assert!(plain(&removed).ends_with("group.removed       Everyone"), "its type says so");
    }

    #[test]
    fn an_update_shows_old_and_new() {
        let changes =
            vec![AttributeChange { attribute: "title".into(), old_value: Some("\"Analyst\"".into()), new_value: None }];
        assert!(plain(&ChangeEvent { changes, ..event("user.updated") }).ends_with("title \"Analyst\" → none"));
    }

    #[test]
    fn text_of_a_directory_cannot_drive_the_terminal() {
        let name = Some("a\u{1b}[31m\nb\u{202e}c".to_owned());
        let line = plain(&ChangeEvent { principal_name: name, ..event("user.added") });
        assert!(line.ends_with(r"a\u{1b}[31m\u{a}b\u{202e}c"), "{line}");
    }
}
