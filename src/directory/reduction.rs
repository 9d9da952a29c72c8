//! The attributes that a principal has to lose for its events to fit into a Kafka message.
//!
//! The reduction is applied as soon as a resource is read. The state, the comparison and the events then all see the
//! same principal.

use super::{AttributeList, Kind, Principal};
use crate::json::json_text;

/// JSON bytes of one resource's listed attributes; its largest attributes are left out if it has more, see [`reduce`].
pub const RESOURCE_BYTES_MAX: usize = 200_000;
/// Bytes that one resource may bring about in an event and in the one that follows it. An event holds up to three
/// quarters of what its new image is reckoned at and two fifths of the old one. Together that is 690,000 bytes, which
/// fit into the 1,000,000 that librdkafka sends by default.
const EVENT_BYTES_MAX: usize = 3 * RESOURCE_BYTES_MAX;

/// Leaves out the largest attributes until the largest event that the principal can make fits into a message. Adds the
/// listed attributes they belong to, as `list` spells them, to `omitted`.
///
/// An event states each value in its image and as a change's new value, and the next one as the old value; each path in
/// the image, and in the changes of both twice. A name is stated as `principal_name` too. A group's name is stated also
/// as `group_name` and, where the pattern reads it, in `entitlement_*`, which are changes with an old and a new value
/// themselves.
pub fn reduce(principal: &mut Principal, kind: Kind, list: &AttributeList) {
    /// Lengths and branches of the encoding, for every path.
    const FRAME: usize = 3;
    if at_most(principal) <= EVENT_BYTES_MAX {
        return;
    }
    // Sizes as JSON, because that is how an event states them.
    let names = [
        // The main address may be the user name.
        ("userName", &principal.user_name, if principal.email_is_user_name() { 5 } else { 4 }),
        ("displayName", &principal.display_name, if kind == Kind::Group { 8 } else { 4 }),
        ("externalId", &principal.external_id, 3),
    ];
    let names =
        names.into_iter().filter_map(|(path, text, times)| Some((path, json_text(text.as_deref()?).len() * times)));
    let attributes = principal.attributes.iter().map(|(path, value)| {
        let email = principal.email.as_ref().filter(|_| path.eq_ignore_ascii_case("emails"));
        (path.as_str(), 5 * (path.len() + FRAME) + 3 * value.len() + email.map_or(0, String::len))
    });
    let mut sizes: Vec<(String, usize)> =
        names.chain(attributes).map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    let mut size: usize = sizes.iter().map(|(_, size)| size).sum();
    if size <= EVENT_BYTES_MAX {
        return;
    }
    sizes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (path, bytes) in sizes {
        if size <= EVENT_BYTES_MAX {
            break;
        }
        size -= bytes;
        match path.as_str() {
            "userName" => {
                if principal.email_is_user_name() {
                    principal.email = None;
                }
                principal.user_name = None;
            }
            "displayName" => principal.display_name = None,
            "externalId" => principal.external_id = None,
            other => {
                principal.attributes.remove(other);
                if other.eq_ignore_ascii_case("emails") {
                    principal.email = None;
                }
            }
        }
        principal.omitted.push(list.entry(&path).unwrap_or(&path).to_owned());
    }
}

/// A bound on what is reckoned below, without making any of it: nearly every principal is far from being too large.
fn at_most(principal: &Principal) -> usize {
    /// Bytes that JSON makes of one, times the most often that a text is stated.
    const EACH: usize = 6 * 8;
    let Principal { user_name, display_name, external_id, email, attributes, .. } = principal;
    let texts = [user_name, display_name, external_id, email].into_iter().flatten().map(|text| text.len() + 2);
    let attributes = attributes.iter().map(|(path, value)| path.len() + value.len() + 2);
    EACH * texts.chain(attributes).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oversized_resource_is_reduced_and_says_what_it_left_out() {
        let mut user = Principal::new("1");
        user.user_name = Some("u".to_owned());
        user.attributes.insert("title".to_owned(), json_text(&"x".repeat(RESOURCE_BYTES_MAX)));
        user.attributes.insert("department".to_owned(), json_text("d"));
        reduce(&mut user, Kind::User, &AttributeList::default());
        assert_eq!((user.omitted, user.user_name.as_deref()), (vec!["title".to_owned()], Some("u")));
        assert_eq!(user.attributes.into_keys().collect::<Vec<_>>(), ["department"]);
    }
}
