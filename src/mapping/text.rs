//! An event as one line for people: time, account, type, principal and details.

use std::borrow::Cow;

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
    let mark = mark(&event.event_type);
    let mut line = format!("  {style}{mark} {:TYPE_WIDTH$}{style:#}  {}", event.event_type, who(event));
    for part in rest(event) {
        line.push_str("   ");
        line.push_str(&part);
    }
    line
}

/// The marks of [`mark`].
pub const MARKS: [char; 4] = ['+', '~', '!', '-'];

/// Whether something is added or enabled (+), updated (~), disabled (!) or removed (-).
pub fn mark(event_type: &str) -> char {
    match event_type.rsplit('.').next() {
        Some("added" | "enabled") => '+',
        Some("removed") => '-',
        Some("disabled") => '!',
        _ => '~',
    }
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
    if event.event_type == "user.updated" && !event.privileges.is_empty() {
        parts.push("(privilege)".to_owned());
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

/// Makes text from a directory safe for a terminal. Characters that act on it, change the direction or cannot be seen are
/// written as escapes.
pub fn clean(text: &str) -> String {
    if !text.contains(misleads) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if misleads(character) {
            clean.extend(character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// A JSON text for a terminal: as [`clean`], with the escapes of JSON, so that it stays the same value.
pub fn clean_json(json: &str) -> Cow<'_, str> {
    // Outside its strings JSON has line breaks and tabs. Inside them it has no character below the space.
    let acts = |character: char| character >= ' ' && misleads(character);
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len());
    for character in json.chars() {
        if acts(character) {
            let units =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            clean.push_str(&units);
        } else {
            clean.push(character);
        }
    }
    Cow::Owned(clean)
}

/// True for control characters, for those that change the direction, and for those that take no place on the screen. Two
/// names that differ in the latter only look the same.
fn misleads(character: char) -> bool {
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(character, '\u{2028}' | '\u{2029}');
    // Unicode's property Default_Ignorable_Code_Point, and the annotations of U+FFF9.
    let unseen = matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    character.is_control() || turns || breaks || unseen
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

    #[test]
    fn what_cannot_be_seen_or_turns_the_text_is_spelled_out_and_letters_stay() {
        for character in "\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{202e}\u{2028}\u{2060}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{e0041}".chars() {
            let text = format!("a{character}b");
            assert_eq!(clean(&text), format!("a\\u{{{:x}}}b", u32::from(character)));
            let json = serde_json::json!({ "name": text }).to_string();
            let shown = clean_json(&json);
            assert!(shown.is_ascii(), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["name"], text);
        }
        let letters = "é 山田 e\u{301} 👍 \u{a0} العربية हिन्दी";
        assert_eq!(clean(letters), letters);
        let pretty = format!("{:#}", serde_json::json!({ "name": letters, "more": [1, "\t\n"] }));
        assert_eq!(clean_json(&pretty), pretty, "it is not touched where nothing acts");
    }
}
