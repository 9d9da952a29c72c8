//! How memberships are read.

/// How memberships are read. Servers differ in where they show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `members` in the list of groups.
    #[default]
    List,
    /// `members` in GET of each group.
    Get,
    /// Users whose `groups.value` is the group.
    GroupsFilter,
    /// Groups whose `members.value` is the user.
    MembersFilter,
    /// `groups` on the user.
    User,
    /// Not at all: memberships stay unknown.
    Never,
}

impl Strategy {
    pub const ALL: [Strategy; 6] = [
        Strategy::List,
        Strategy::Get,
        Strategy::GroupsFilter,
        Strategy::MembersFilter,
        Strategy::User,
        Strategy::Never,
    ];

    /// As the profile's `memberships` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::List => "list",
            Strategy::Get => "get",
            Strategy::GroupsFilter => "groups_filter",
            Strategy::MembersFilter => "members_filter",
            Strategy::User => "user",
            Strategy::Never => "never",
        }
    }

    pub fn parse(text: &str) -> Option<Strategy> {
        Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == text)
    }
}
