//! A campaign: whom to reach, through which channel, how often, when, and with what words.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use reunion_model::Purpose;
use reunion_model::plugin::ChannelTraits;

use crate::clock;
use crate::message::Template;

/// A campaign as the planner needs it. Its audience is a column of booleans beside the members.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Its name in the config.
    pub name: String,
    /// Off: nothing is planned, and open tasks are taken back.
    pub enabled: bool,
    /// Its channel cannot say now what it asks of a task: nothing is planned, and open tasks wait.
    pub paused: bool,
    /// The channel that its tasks go to.
    pub channel: String,
    /// Share of the contact points that form the control group, 0 to 1.
    pub holdout: f64,
    /// Touches of one contact point at most.
    pub touches_max: u32,
    /// Calendar days, cut in the config's timezone, from one touch to the next.
    pub gap_days: u32,
    /// Tasks of one run at most.
    pub per_run_max: u32,
    /// Tasks of this campaign that one store is given on one calendar day at most. Members without a
    /// store are not counted.
    pub per_store_per_day_max: u32,
    /// When tasks are planned and sent; none: always.
    pub window: Option<Window>,
    /// A task is due at the end of the day that lies so many days after the run's.
    pub due_days: Option<u32>,
    /// The consent that the channel needs.
    pub consent: Option<Purpose>,
    /// Columns of a task that must not be null.
    pub needs: Vec<TaskColumn>,
    /// Columns of a task whose values must be equal within one dispatch.
    pub group_by: Vec<TaskColumn>,
    /// The words for the member.
    pub message: Option<Template>,
    /// Why the member is on the list, for the clerk.
    pub reason: Option<Template>,
}

impl Campaign {
    /// A campaign with the defaults: one touch, no control group, 5000 tasks a run, 50 a store and day,
    /// at any time, through a channel that needs nothing.
    pub fn new(name: impl Into<String>, channel: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            enabled: true,
            paused: false,
            channel: channel.into(),
            holdout: 0.0,
            touches_max: 1,
            gap_days: 0,
            per_run_max: 5000,
            per_store_per_day_max: 50,
            window: None,
            due_days: None,
            consent: None,
            needs: Vec::new(),
            group_by: Vec::new(),
            message: None,
            reason: None,
        }
    }

    /// The same campaign, with what its channel asks of tasks.
    ///
    /// # Errors
    /// Where the channel names a purpose or a column that does not exist, or needs a text that the
    /// campaign does not have.
    pub fn through(mut self, traits: &ChannelTraits) -> Result<Self, CampaignError> {
        let column = |name: &String| {
            TaskColumn::from_name(name).ok_or_else(|| CampaignError::ChannelColumn { channel: self.channel.clone(), column: name.clone() })
        };
        self.needs = traits.needs.iter().map(column).collect::<Result<_, _>>()?;
        self.group_by = traits.group_by.iter().map(column).collect::<Result<_, _>>()?;
        self.consent = match &traits.consent {
            None => None,
            Some(name) => Some(
                Purpose::ALL
                    .into_iter()
                    .find(|purpose| purpose.name() == name)
                    .ok_or_else(|| CampaignError::ChannelConsent { channel: self.channel.clone(), consent: name.clone() })?,
            ),
        };
        self.check()?;
        Ok(self)
    }

    /// Whether it plans tasks in this run.
    pub fn plans(&self) -> bool {
        self.enabled && !self.paused
    }

    /// Whether its parts fit together.
    ///
    /// # Errors
    /// Names the first key that does not.
    pub fn check(&self) -> Result<(), CampaignError> {
        let key = |key, expected| CampaignError::Key { campaign: self.name.clone(), key, expected };
        if !(0.0..=1.0).contains(&self.holdout) {
            return Err(key("holdout", "a share from 0 to 1"));
        }
        if self.touches_max == 0 {
            return Err(key("touches_max", "1 or more; a campaign that shall not run has enabled = false"));
        }
        if self.touches_max > 1 && self.gap_days == 0 {
            return Err(key("gap_days", "1 or more, as touches_max is more than 1"));
        }
        let missing = |column| CampaignError::Needs { campaign: self.name.clone(), channel: self.channel.clone(), column };
        for need in &self.needs {
            match need {
                TaskColumn::Message if self.message.is_none() => return Err(missing("message")),
                TaskColumn::Reason if self.reason.is_none() => return Err(missing("reason")),
                TaskColumn::Due if self.due_days.is_none() => return Err(missing("due_days")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why a campaign cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CampaignError {
    /// A key with a value that makes no sense.
    #[error("campaign {campaign}: {key} must be {expected}")]
    Key {
        /// The campaign.
        campaign: String,
        /// The key to blame.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A key that its channel needs.
    #[error("campaign {campaign}: the channel {channel} needs {column}, and the campaign has none")]
    Needs {
        /// The campaign.
        campaign: String,
        /// Its channel.
        channel: String,
        /// The key that is missing.
        column: &'static str,
    },
    /// A plugin that names a column which tasks do not have.
    #[error("channel {channel} names the task column {column:?}, and tasks have campaign, store, staff, name, reason, message and due")]
    ChannelColumn {
        /// The channel.
        channel: String,
        /// What it names.
        column: String,
    },
    /// A plugin that names a consent which does not exist.
    #[error("channel {channel} needs the consent {consent:?}, and there are sms, call and message")]
    ChannelConsent {
        /// The channel.
        channel: String,
        /// What it names.
        consent: String,
    },
}

/// A column of a task that a channel may need or group by. Its id and phone are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskColumn {
    /// The campaign's name.
    Campaign,
    /// The member's store.
    Store,
    /// The clerk who serves the member.
    Staff,
    /// The member's name.
    Name,
    /// Why the member is on the list.
    Reason,
    /// The words for the member.
    Message,
    /// When it is due.
    Due,
}

impl TaskColumn {
    /// Every such column.
    pub const ALL: [Self; 7] = [Self::Campaign, Self::Store, Self::Staff, Self::Name, Self::Reason, Self::Message, Self::Due];

    /// Its name in a batch of tasks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Campaign => "campaign",
            Self::Store => "store",
            Self::Staff => "staff",
            Self::Name => "name",
            Self::Reason => "reason",
            Self::Message => "message",
            Self::Due => "due",
        }
    }

    /// The column of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

/// The hours of the day and days of the week in which members may be touched, on the clock of the
/// config's timezone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    from: Time,
    to: Time,
    /// By days since Monday.
    days: [bool; 7],
}

/// A window that never opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window must open before it closes on the same day: `from` has to be earlier than `to`")]
pub struct WindowError;

impl Window {
    /// From `from` until before `to` on these days of the week; no day given: on every day.
    ///
    /// # Errors
    /// Where `from` is not before `to`.
    pub fn new(from: Time, to: Time, days: &[Weekday]) -> Result<Self, WindowError> {
        if from >= to {
            return Err(WindowError);
        }
        let mut open = [days.is_empty(); 7];
        for day in days {
            open[usize::from(day.to_monday_zero_offset().unsigned_abs())] = true;
        }
        Ok(Self { from, to, days: open })
    }

    /// Whether it is open at this moment (microseconds UTC).
    pub fn contains(&self, at_us: i64, timezone: &TimeZone) -> bool {
        let now = clock::local(at_us, timezone);
        self.is_open_on(now.weekday()) && (self.from..self.to).contains(&now.time())
    }

    /// The first moment from `at_us` on at which it is open, microseconds UTC.
    pub fn opens_at(&self, at_us: i64, timezone: &TimeZone) -> i64 {
        if self.contains(at_us, timezone) {
            return at_us;
        }
        let today = clock::day(at_us, timezone);
        // A week and a day: today's hours may be over, and the next open day a week off.
        (0..=7)
            .map(|days| clock::add_days(today, days))
            .filter(|day| self.is_open_on(day.weekday()))
            .filter_map(|day| timezone.to_ambiguous_timestamp(day.to_datetime(self.from)).compatible().ok())
            .map(|opening| opening.as_microsecond())
            .find(|opening| *opening >= at_us)
            .unwrap_or(i64::MAX)
    }

    fn is_open_on(&self, day: Weekday) -> bool {
        self.days[usize::from(day.to_monday_zero_offset().unsigned_abs())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use jiff::Timestamp;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn window(days: &[Weekday]) -> Window {
        Window::new("09:00".parse().unwrap(), "20:30".parse().unwrap(), days).unwrap()
    }

    #[test]
    fn a_window_opens_and_closes_on_the_local_clock() {
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        let every_day = window(&[]);
        for (moment, open) in [
            ("2026-03-25T00:59:59Z", false),
            ("2026-03-25T01:00:00Z", true),
            ("2026-03-25T12:29:59Z", true),
            ("2026-03-25T12:30:00Z", false),
        ] {
            assert_eq!(every_day.contains(at(moment), &shanghai), open, "{moment}");
        }
        assert_eq!(every_day.opens_at(at("2026-03-25T12:30:00Z"), &shanghai), at("2026-03-26T01:00:00Z"));
        assert_eq!(every_day.opens_at(at("2026-03-25T03:00:00Z"), &shanghai), at("2026-03-25T03:00:00Z"));
    }

    #[test]
    fn a_window_of_one_day_opens_a_week_later() {
        // 2026-03-25 is a Wednesday.
        let wednesday = window(&[Weekday::Wednesday]);
        assert!(wednesday.contains(at("2026-03-25T10:00:00Z"), &TimeZone::UTC));
        assert!(!wednesday.contains(at("2026-03-26T10:00:00Z"), &TimeZone::UTC));
        assert_eq!(wednesday.opens_at(at("2026-03-25T21:00:00Z"), &TimeZone::UTC), at("2026-04-01T09:00:00Z"));
        assert_eq!(wednesday.opens_at(i64::MAX, &TimeZone::UTC), i64::MAX);
    }

    #[test]
    fn a_window_cannot_be_empty() {
        assert_eq!(Window::new("20:00".parse().unwrap(), "09:00".parse().unwrap(), &[]), Err(WindowError));
    }

    #[test]
    fn a_campaign_that_does_not_fit_its_channel_is_refused() {
        let traits = |needs: &str, consent: &str| ChannelTraits {
            needs: vec![needs.into()],
            consent: (!consent.is_empty()).then(|| consent.into()),
            ..Default::default()
        };
        let campaign = Campaign::new("warm-add", "store-list");
        assert_snapshot!(campaign.clone().through(&traits("message", "")).unwrap_err(), @"campaign warm-add: the channel store-list needs message, and the campaign has none");
        assert_snapshot!(campaign.clone().through(&traits("shop", "")).unwrap_err(), @r#"channel store-list names the task column "shop", and tasks have campaign, store, staff, name, reason, message and due"#);
        assert_snapshot!(campaign.clone().through(&traits("store", "fax")).unwrap_err(), @r#"channel store-list needs the consent "fax", and there are sms, call and message"#);
        let fits = campaign.through(&traits("store", "sms")).unwrap();
        assert_eq!((fits.needs, fits.consent), (vec![TaskColumn::Store], Some(Purpose::Sms)));
    }

    #[test]
    fn a_campaign_with_impossible_numbers_is_refused() {
        let with = |change: fn(&mut Campaign)| {
            let mut campaign = Campaign::new("warm-add", "store-list");
            change(&mut campaign);
            campaign.check().unwrap_err().to_string()
        };
        assert_snapshot!(with(|c| c.holdout = f64::NAN), @"campaign warm-add: holdout must be a share from 0 to 1");
        assert_snapshot!(with(|c| c.touches_max = 0), @"campaign warm-add: touches_max must be 1 or more; a campaign that shall not run has enabled = false");
        assert_snapshot!(with(|c| c.touches_max = 2), @"campaign warm-add: gap_days must be 1 or more, as touches_max is more than 1");
    }
}
