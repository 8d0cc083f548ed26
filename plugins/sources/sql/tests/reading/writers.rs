//! Tables that change while they are read, and what is known of them in the end.

use std::collections::BTreeMap;

use crate::common::writers::{LATE_SECS, Member, Members, TABLES, write};
use crate::common::{Database, Pulled, read_with};
use reunion_sdk::{ReadMode, ReadRequest};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

/// A source, and what was read of it so far, as the host keeps it.
struct Reader {
    source: SqlSource,
    state: Option<Value>,
    rows: BTreeMap<u32, String>,
    pulls: usize,
}

impl Reader {
    fn new(database: &Database, with: Value) -> Self {
        Self { source: database.source(with), state: None, rows: BTreeMap::new(), pulls: 0 }
    }

    fn pull(&mut self, mode: ReadMode) {
        let request = ReadRequest { overlap_secs: LATE_SECS + 1, ..ReadRequest::new(mode) };
        let pulled: Pulled = read_with(&self.source, request, self.state.clone()).unwrap();
        let rows = pulled.rows.iter().map(|row| {
            let (id, row) = row.split_once('|').unwrap();
            (id.parse().unwrap(), row.to_owned())
        });
        if mode == ReadMode::Snapshot {
            // What is not in it was deleted.
            self.rows.clear();
        }
        self.rows.extend(rows);
        self.state = pulled.state();
        self.pulls += 1;
    }
}

fn expected(members: &Members, row: impl Fn(&Member) -> String) -> BTreeMap<u32, String> {
    members.iter().map(|(id, member)| (*id, row(member))).collect()
}

#[test]
fn after_the_last_sweep_the_records_are_the_tables_and_before_it_those_whose_time_tells() {
    for database in Database::all() {
        database.execute(TABLES);
        let by_cursor = json!({
            "query": "select id, name, changed from member where changed >= $cursor or changed is null",
            "id_column": "id",
            "cursor_column": "changed"
        });
        let by_changes = json!({
            "query": "select m.id, m.name, c.phone from member m join contact c on c.id = m.id",
            "id_column": "id",
            "changed": [
                "select id, changed from member where changed >= $cursor or changed is null",
                "select id, changed from contact where changed >= $cursor or changed is null"
            ]
        });
        let mut readers = [by_cursor, by_changes].map(|with| Reader::new(&database, with));
        let members = write(&database, 7, 40, || readers.iter_mut().for_each(|reader| reader.pull(ReadMode::Incremental)));
        let [by_cursor, by_changes] = &mut readers;
        let name = |row: &str| row.split('|').next().unwrap().to_owned();
        for reader in [&mut *by_cursor, &mut *by_changes] {
            reader.pull(ReadMode::Incremental);
            assert!(reader.pulls > 3, "{} pulls in all", reader.pulls);
        }
        for (id, member) in &members {
            if member.is_name_found {
                assert_eq!(name(&by_cursor.rows[id]), member.name, "{id} {member:?}");
            }
            if member.is_found {
                assert_eq!(by_changes.rows[id], format!("{}|{}", member.name, member.phone), "{id} {member:?}");
            }
        }
        for reader in [&mut *by_cursor, &mut *by_changes] {
            reader.pull(ReadMode::Snapshot);
        }
        let names = by_cursor.rows.iter().map(|(id, row)| (*id, name(row))).collect::<BTreeMap<_, _>>();
        assert_eq!(names, expected(&members, |member| member.name.clone()));
        assert_eq!(by_changes.rows, expected(&members, |member| format!("{}|{}", member.name, member.phone)));
    }
}
