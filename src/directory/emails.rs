//! Which address of `emails` is the main one, after a change and before it.

use std::collections::BTreeSet;

use crate::json::Json;

/// The primary address of `emails`, else the one of type `work`, else the smallest by text.
///
/// Reads what servers really send: one address or many, as texts or as objects, `primary` also as text or 1.
pub fn main_email(emails: &str) -> Option<String> {
    let elements = Json::read(emails)?.elements();
    let addresses = elements.iter().filter_map(|element| Some((rank(element), address(element)?)));
    addresses.min().map(|(_, address)| address.to_owned())
}

/// The main address before a change of the addresses: `now` and `before` are all attributes (SCIM path, JSON text)
/// after it and before it, `email` is the address after it. `None`: there was none, or which one it was cannot be told.
///
/// Where only `emails.value` is listed, the address was chosen by what is not there, such as `primary`. Then it is told
/// only where it was the only one, or where the one of today was there already: that one most likely was it, too.
pub fn email_before<'a, A>(email: Option<&str>, now: A, before: A) -> Option<String>
where
    A: IntoIterator<Item = (&'a str, &'a str)>,
{
    let before = emails_in(before)?;
    if emails_in(now).and_then(main_email).as_deref() == email {
        return main_email(before);
    }
    let mut addresses = addresses(before);
    if addresses.len() > 1 {
        addresses.retain(|address| Some(address.as_str()) == email);
    }
    addresses.pop_first()
}

/// The value that holds the addresses. One address that is not in an array may be flattened there.
fn emails_in<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    let mut flattened = None;
    for (path, text) in attributes {
        if path.eq_ignore_ascii_case("emails") {
            return Some(text);
        }
        if path.eq_ignore_ascii_case("emails.value") {
            flattened = Some(text);
        }
    }
    flattened
}

fn addresses(emails: &str) -> BTreeSet<String> {
    let elements = Json::read(emails).map(Json::elements).unwrap_or_default();
    elements.iter().filter_map(address).map(str::to_owned).collect()
}

/// The smaller, the more it is the main one.
fn rank(element: &Json<'_>) -> u8 {
    let is_primary = |value: &Json<'_>| match value {
        Json::Bool(primary) => *primary,
        Json::Number(digits) => *digits == "1",
        Json::Text(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    };
    let is_work = |value: &Json<'_>| value.text().is_some_and(|text| text.eq_ignore_ascii_case("work"));
    match element {
        element if element.all("primary").any(is_primary) => 0,
        element if element.all("type").any(is_work) => 1,
        _ => 2,
    }
}

fn address<'v>(element: &'v Json<'_>) -> Option<&'v str> {
    let texts = element.text().into_iter().chain(element.all("value").filter_map(Json::text));
    texts.filter(|text| !text.is_empty()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_address_is_the_primary_else_of_type_work_else_the_smallest() {
        for (emails, main) in [
            (r#"[{"value":"b@x"},{"primary":true,"value":"c@x"},{"type":"work","value":"a@x"}]"#, Some("c@x")),
            (r#"[{"value":"a@x"},{"type":"Work","value":"c@x"},{"type":"work","value":"b@x"}]"#, Some("b@x")),
            (r#"[{"type":"home","value":"b@x"},{"value":"a@x"}]"#, Some("a@x")),
            (r#"[{"primary":true,"value":"c@x"},{"primary":true,"value":"b@x"},{"value":"a@x"}]"#, Some("b@x")),
            (r#"[{"primary":false,"value":"b@x"},{"value":"c@x"}]"#, Some("b@x")),
        ] {
            assert_eq!(main_email(emails).as_deref(), main, "{emails}");
        }
    }

    #[test]
    fn an_address_is_found_however_a_server_writes_it() {
        for (emails, main) in [
            (r#""a@x""#, Some("a@x")),
            (r#"{"value":"a@x","type":"home"}"#, Some("a@x")),
            (r#"["b@x","a@x"]"#, Some("a@x")),
            (r#"["a@x",{"TYPE":"WORK","Value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"PRIMARY":"True","Value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":"true","value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":1,"value":"b@x"}]"#, Some("b@x")),
            (r#"[{"value":"a@x"},{"primary":"yes","value":"b@x"},{"primary":0,"value":"c@x"}]"#, Some("a@x")),
            (r#"[{"primary":true,"value":""},{"value":"b@x"},""]"#, Some("b@x")),
            (r#"[{"primary":true},{"primary":true,"value":7},[["a@x"]],null,"b@x"]"#, Some("b@x")),
            (" [ \"a@x\" ]\r\n", Some("a@x")),
            (r#""""#, None),
            ("[]", None),
            ("7", None),
            ("null", None),
        ] {
            assert_eq!(main_email(emails).as_deref(), main, "{emails}");
        }
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        for (emails, main) in [
            (r#""\u0061\u0040x\/\"\\\b\f\n\r\t""#, "a@x/\"\\\u{8}\u{c}\n\r\t"),
            (r#"{"v\u0061lue":"ü\u00fc@x"}"#, "üü@x"),
            (r#""\ud83d\uDE00@x""#, "😀@x"),
            (r#""\ud83d@x""#, "\u{fffd}@x"),
            (r#""\ude00@x""#, "\u{fffd}@x"),
            (r#""\ud83d\ud83d\ude00@x""#, "\u{fffd}😀@x"),
            (r#""\ud83d\u0041@x""#, "\u{fffd}A@x"),
            (r#""\ud83d\n@x""#, "\u{fffd}\n@x"),
            (r#""\u0041\u0042@x""#, "AB@x"),
        ] {
            assert_eq!(main_email(emails).as_deref(), Some(main), "{emails}");
        }
    }

    /// Before a change from the first attributes to the second, after which the address is this.
    fn told(before: &[(&str, &str)], now: &[(&str, &str)], email: Option<&str>) -> Option<String> {
        email_before(email, now.iter().copied(), before.iter().copied())
    }

    #[test]
    fn the_address_before_a_change_is_chosen_as_the_one_after() {
        let now = [("emails", r#"[{"value":"now@x"}]"#)];
        let before = |attributes: &[(&str, &str)]| told(attributes, &now, Some("now@x"));
        assert_eq!(before(&[("Emails", r#"["b@x","a@x"]"#), ("title", r#""T""#)]).as_deref(), Some("a@x"));
        assert_eq!(before(&[("emails.primary", "true"), ("emails.Value", r#""a@x""#)]).as_deref(), Some("a@x"));
        assert_eq!(before(&[("title", r#""a@x""#), ("emails.type", r#""work""#)]), None);
        assert_eq!(told(&now, &[], None).as_deref(), Some("now@x"), "none is left");
    }

    #[test]
    fn an_address_that_was_chosen_by_what_is_not_there_is_told_only_where_it_is_known() {
        let now = [("emails", r#"[{"value":"a@x"},{"value":"main@x"}]"#)];
        let before = |emails: &str| told(&[("emails", emails)], &now, Some("main@x"));
        assert_eq!(before(r#"[{"value":"a@x"},{"value":"b@x"},{"value":"main@x"}]"#).as_deref(), Some("main@x"));
        assert_eq!(before(r#"[{"value":"b@x"},{"value":"b@x"}]"#).as_deref(), Some("b@x"), "the only one");
        assert_eq!(before(r#"[{"value":"a@x"},{"value":"b@x"}]"#), None);
        assert_eq!(before("unreadable"), None);
    }
}
