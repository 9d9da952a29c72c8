//! Keys of the compacted topics (`schemas/README.md`).

use super::principal::{Id, Kind, Member};

/// What a record of a compacted topic is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    Principal(Kind, Id),
    Membership { member: Member, group: Id },
}

impl StateKey {
    /// `account/Users/<id>`, `account/Groups/<id>` or `account/Users/<uid>/Groups/<gid>`.
    pub fn text(&self, account: &str) -> String {
        match self {
            StateKey::Principal(kind, id) => principal_key(account, *kind, id),
            StateKey::Membership { member, group } => {
                let mut key = principal_key(account, member.kind, &member.id);
                key.push_str("/Groups/");
                push_part(&mut key, group);
                key
            }
        }
    }

    /// The inverse of [`StateKey::text`], whatever the account; `None` for keys of no known form.
    pub fn parse(text: &str) -> Option<StateKey> {
        let parts: Vec<&str> = text.split('/').collect();
        let kind = |endpoint: &str| Kind::BOTH.into_iter().find(|kind| kind.endpoint() == endpoint);
        match parts[..] {
            [_, endpoint, id] => Some(StateKey::Principal(kind(endpoint)?, decode_part(id)?)),
            [_, endpoint, id, "Groups", group] => {
                let member = Member { kind: kind(endpoint)?, id: decode_part(id)? };
                Some(StateKey::Membership { member, group: decode_part(group)? })
            }
            _ => None,
        }
    }
}

fn decode_part(part: &str) -> Option<Id> {
    let text = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.as_ref().into())
}

/// The key of a principal: that of its state record and of its events.
pub fn principal_key(account: &str, kind: Kind, id: &str) -> String {
    let mut key = String::with_capacity(account.len() + id.len() + 8);
    key.push_str(account);
    key.push('/');
    key.push_str(kind.endpoint());
    key.push('/');
    push_part(&mut key, id);
    key
}

/// Percent-encodes `%`, `/` and control characters; keys hold everything else unchanged.
fn push_part(key: &mut String, part: &str) {
    for character in part.chars() {
        if character == '%' || character == '/' || character.is_control() {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        } else {
            key.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_percent_slash_and_control_characters_are_encoded() {
        let key = StateKey::Principal(Kind::User, "a/b%c\nd é:@\u{85}".into());
        assert_eq!(key.text("acme"), "acme/Users/a%2Fb%25c%0Ad é:@%C2%85");
        assert_eq!(StateKey::parse(&key.text("acme")), Some(key));
    }

    #[test]
    fn a_nested_group_is_a_member_of_kind_group() {
        let member = Member { kind: Kind::Group, id: "child".into() };
        let key = StateKey::Membership { member, group: "parent".into() };
        assert_eq!(key.text("acme"), "acme/Groups/child/Groups/parent");
        assert_eq!(StateKey::parse(&key.text("acme")), Some(key));
        assert_eq!(StateKey::parse("acme/latest"), None);
    }
}
