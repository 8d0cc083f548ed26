//! Eight programs that change two tables at random, as an ERP's clerks and tills do: rows come, change and go, with
//! times that are null, of the future, of a clock that was set back, and of transactions that were long under way.
//!
//! Times are seconds of a clock of the test's own, so that how late a transaction is does not depend on the machine.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::Database;

/// No transaction commits when more seconds than these have passed since it began.
pub const LATE_SECS: u64 = 20;
const WRITERS: u32 = 8;
/// Ids of one writer, which nobody else changes.
const IDS: u64 = 12;

pub const TABLES: &str = "create table member (id integer primary key, name {text}, changed {time}); \
     create table contact (id integer primary key, phone {text}, changed {time})";

/// A member as the tables have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub phone: String,
    /// Whether the last change of its name, and of anything, has a time by which it can be found.
    pub is_name_found: bool,
    pub is_found: bool,
}

/// What the tables hold at the end.
pub type Members = BTreeMap<u32, Member>;

/// Seconds that pass with each transaction, and when those began that are under way.
#[derive(Default)]
struct Clock {
    now: Mutex<(u64, BTreeMap<u32, u64>)>,
    ended: Condvar,
}

impl Clock {
    fn begin(&self, writer: u32) -> u64 {
        let now = self.now.lock().expect("no writer broke off");
        let too_late = |(now, open): &mut (u64, BTreeMap<u32, u64>)| open.values().any(|began| began + LATE_SECS <= *now);
        let mut now = self.ended.wait_while(now, too_late).expect("no writer broke off");
        now.0 += 1;
        let at = now.0;
        now.1.insert(writer, at);
        at
    }

    fn end(&self, writer: u32) {
        self.now.lock().expect("no writer broke off").1.remove(&writer);
        self.ended.notify_all();
    }
}

/// Runs the writers, each with so many transactions, and meanwhile `pull`.
pub fn write(database: &Database, seed: u64, transactions: u32, mut pull: impl FnMut()) -> Members {
    let clock = Clock::default();
    std::thread::scope(|scope| {
        let clock = &clock;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || run(database, clock, seed, writer, transactions))).collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            pull();
        }
        writers.into_iter().flat_map(|writer| writer.join().expect("it writes")).collect()
    })
}

fn run(database: &Database, clock: &Clock, seed: u64, writer: u32, transactions: u32) -> Members {
    let mut random = Random(seed.wrapping_mul(1_000_003) + u64::from(writer));
    let mut members = Members::new();
    for _ in 0..transactions {
        let at = clock.begin(writer);
        let changes = (0..=random.below(3)).map(|_| change(&mut random, &mut members, writer, at));
        let changes = changes.collect::<Vec<_>>().join(" ");
        let late = if random.below(4) == 0 { Duration::from_millis(20 * random.below(5)) } else { Duration::ZERO };
        transact(database, &changes, late);
        clock.end(writer);
    }
    members
}

/// One change of a random member, in SQL and in what the tables will hold.
fn change(random: &mut Random, members: &mut Members, writer: u32, at: u64) -> String {
    let id = writer + WRITERS * u32::try_from(random.below(IDS)).expect("it is small");
    let (time, is_found) = match random.below(10) {
        0 => ("null".to_owned(), true),
        1 => ("'2999-01-01 00:00:00'".to_owned(), true),
        2 => (moment(-1000), false),
        _ => (moment(i64::try_from(at).expect("it is small")), true),
    };
    let (name, phone) = (format!("名{at}"), format!("139002{}{:04}", at % 10, id + 1000));
    let Some(member) = members.get_mut(&id) else {
        let sql = format!("insert into member values ({id}, '{name}', {time}); insert into contact values ({id}, '{phone}', {time});");
        members.insert(id, Member { name, phone, is_name_found: is_found, is_found });
        return sql;
    };
    match random.below(5) {
        0 => {
            members.remove(&id);
            format!("delete from member where id = {id}; delete from contact where id = {id};")
        }
        1 | 2 => {
            (member.name, member.is_name_found, member.is_found) = (name, is_found, is_found);
            format!("update member set name = '{}', changed = {time} where id = {id};", member.name)
        }
        _ => {
            (member.phone, member.is_found) = (phone, is_found);
            format!("update contact set phone = '{}', changed = {time} where id = {id};", member.phone)
        }
    }
}

fn moment(secs: i64) -> String {
    let at = jiff::civil::DateTime::constant(2026, 2, 1, 0, 0, 0, 0).checked_add(jiff::SignedDuration::from_secs(secs));
    format!("'{}'", at.expect("it is near").strftime("%F %T"))
}

/// Commits late, as far as the database lets others write meanwhile.
fn transact(database: &Database, changes: &str, late: Duration) {
    let secs = late.as_secs_f64();
    database.execute(&match database {
        Database::Sqlite { .. } => {
            std::thread::sleep(late);
            format!("begin immediate; {changes} commit;")
        }
        Database::Postgres(_) => format!("begin; {changes} select pg_sleep({secs}); commit;"),
        Database::Mariadb { .. } => {
            format!("set session transaction isolation level read committed; start transaction; {changes} do sleep({secs}); commit;")
        }
    });
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % end
    }
}
