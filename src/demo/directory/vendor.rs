//! The vendors that are imitated: how each one's directory begins, and what happens in it.

/// The vendor whose behaviour is imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// A user has five attributes, and a deactivated user vanishes.
    Stripe,
    /// A user has many attributes and stays listed when deactivated. Group names carry the entitlement.
    Chargebee,
}

/// The numbers that a directory starts with.
pub struct Population {
    pub users: usize,
    pub inactive: usize,
    pub groups: usize,
    pub memberships: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    UserAdded,
    UserUpdated,
    UserDisabled,
    UserEnabled,
    UserRemoved,
    MembershipAdded,
    MembershipRemoved,
    GroupAdded,
    GroupRenamed,
    GroupRemoved,
}

impl Change {
    /// The event type by which a reader sees the change first.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::UserAdded => "user.added",
            Self::UserUpdated => "user.updated",
            Self::UserDisabled => "user.disabled",
            Self::UserEnabled => "user.enabled",
            Self::UserRemoved => "user.removed",
            Self::MembershipAdded => "membership.added",
            Self::MembershipRemoved => "membership.removed",
            Self::GroupAdded => "group.added",
            Self::GroupRenamed => "group.updated",
            Self::GroupRemoved => "group.removed",
        }
    }
}

impl Vendor {
    pub const ALL: [Vendor; 2] = [Vendor::Stripe, Vendor::Chargebee];

    /// The name of its profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Chargebee => "chargebee",
        }
    }

    pub(super) fn population(self) -> Population {
        match self {
            Self::Stripe => Population { users: 25, inactive: 0, groups: 4, memberships: 31 },
            Self::Chargebee => Population { users: 40, inactive: 2, groups: 9, memberships: 77 },
        }
    }

    /// The changes that happen here, with weights. People change groups more often than they join, and groups change
    /// seldom.
    pub(super) fn changes(self) -> &'static [(Change, u32)] {
        match self {
            Self::Stripe => &[
                (Change::UserAdded, 4),
                (Change::UserUpdated, 4),
                (Change::UserRemoved, 4),
                (Change::MembershipAdded, 6),
                (Change::MembershipRemoved, 4),
                (Change::GroupAdded, 1),
                (Change::GroupRemoved, 1),
            ],
            Self::Chargebee => &[
                (Change::UserAdded, 3),
                (Change::UserUpdated, 5),
                (Change::UserDisabled, 3),
                (Change::UserEnabled, 2),
                (Change::UserRemoved, 2),
                (Change::MembershipAdded, 6),
                (Change::MembershipRemoved, 4),
                (Change::GroupAdded, 1),
                (Change::GroupRenamed, 1),
                (Change::GroupRemoved, 1),
            ],
        }
    }

    /// Names for groups; the first ones are those of the initial population. There are more names than groups, so a new
    /// group always finds a free one.
    pub(super) fn group_names(self) -> &'static [&'static str] {
        match self {
            Self::Stripe => &[
                "Administrators",
                "Developers",
                "Support Specialists",
                "Finance",
                "Dispute Analysts",
                "Refund Approvers",
                "Tax Analysts",
                "View Only",
                "Terminal Operators",
                "Billing Operations",
            ],
            Self::Chargebee => &[
                "CB/acme.com/ROLE/Admin",
                "CB/acme.com/ROLE/Finance Executive",
                "CB/acme.com/ROLE/Sales Manager",
                "CB/acme.com/ROLE/Customer Support",
                "CB/acme.com/ROLE/Analyst",
                "CB/acme.com/ROLE/Developer",
                // The last slash is part of the entity's name: readers split at the first three only.
                "CB/acme.com/BE/Europe/West",
                "CB/acme.com/BE/North America",
                "CB/acme.com/BE/Asia Pacific",
                "CB/acme.com/ROLE/Auditor",
                "CB/acme.com/ROLE/Billing Operations",
                "CB/acme.com/ROLE/Revenue Accountant",
                "CB/acme.com/ROLE/Product Catalog Editor",
                "CB/acme.com/ROLE/Tech Support",
                "CB/acme.com/ROLE/Sales Agent",
                "CB/acme.com/ROLE/Collections",
                "CB/acme.com/BE/Europe/North",
                "CB/acme.com/BE/Latin America",
                "CB/acme.com/BE/Middle East",
                "CB/acme.com/BE/Oceania",
            ],
        }
    }
}
