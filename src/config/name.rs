//! The rules for names in the configuration. An account's name is part of every record key, and the topic prefix is part
//! of every topic's name.

/// Bytes of the name of an account or provider.
const NAME_BYTES_MAX: usize = 63;
/// Bytes of the topic prefix. Kafka allows 249 for the name of a topic, and the suffix follows.
const PREFIX_BYTES_MAX: usize = 200;

/// [`is_name`] in the words of a message.
pub const NAME_RULE: &str = "a name is [a-z0-9][a-z0-9._-]{0,62}";

/// True for the name of an account or provider.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}

/// True for a prefix of topic names.
pub fn is_topic_prefix(prefix: &str) -> bool {
    !prefix.is_empty()
        && prefix.len() <= PREFIX_BYTES_MAX
        && prefix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
