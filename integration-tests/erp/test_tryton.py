"""What a clerk does in a real Tryton arrives by config/examples/tryton.toml: with the next pull, or with the
next sweep where nothing in the database tells of it."""

import itertools
import threading
import time
import unittest
from datetime import date, datetime
from zoneinfo import ZoneInfo

import tryton
from clerk import Clerk
from reunion import TARGET, Reunion, grants

EXAMPLE = "tryton.toml"
SHANGHAI = ZoneInfo("Asia/Shanghai")
WAIT_SECS_MAX = 30
NUMBERS = itertools.count(13_901_231_000)


def number():
    """A phone that nobody had before."""
    return str(next(NUMBERS))


def day_of(moment):
    """The day of a time in UTC by the example's timezone."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(SHANGHAI).date()


class WhatAClerkDoes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tryton = tryton.Tryton(TARGET / "erp")
        cls.addClassCleanup(cls.tryton.end)
        cls.erp = cls.tryton.postgres.connect(tryton.DATABASE)
        cls.addClassCleanup(cls.erp.close)
        cls.clerk = Clerk(cls.tryton.url)
        # So many that a sweep may find one gone.
        cls.clerk.create_parties(*((f"会员{at}", number()) for at in range(60)))
        for statement in grants(EXAMPLE):
            cls.erp.execute(statement)

    def setUp(self):
        url = self.tryton.postgres.url("reunion", tryton.DATABASE)
        edits = {"url =": f'url = "{url}"', "enabled =": "enabled = true", "holdout =": "holdout = 0.0"}
        self.reunion = Reunion(EXAMPLE, edits)
        self.addCleanup(self.reunion.end)
        self.reunion.once()

    def member(self, phone):
        """The member with a phone, or none."""
        found = self.reunion.query(f"select * from members where phone = '86{phone}'")
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def name(self, phone):
        """The name of the member with a phone, or none where there is no member."""
        member = self.member(phone)
        return member and member["name"]

    def orders(self, phone):
        """How many orders a member has, their sum, and the day of the last one by the config's timezone."""
        member = self.member(phone)
        last = member["last_order_at"] and day_of(member["last_order_at"])
        return member["order_count"], member["total_spent"], last

    def fetch(self, sql, *parameters):
        """The one row that the ERP's database answers with."""
        return self.erp.execute(sql, parameters).fetchone()

    def let_a_day_pass(self):
        """Makes all that is in the ERP a day older, or the overlap would read it again whatever a clerk does."""
        for table in ("party_party", "party_contact_mechanism", "sale_sale"):
            older = ", ".join(f"{column} = {column} - interval '1 day'" for column in ("create_date", "write_date"))
            self.erp.execute(f"update {table} set {older}")

    def test_the_reader_of_the_example_may_read_all_that_it_names(self):
        self.reunion.run("check", "--connect")

    def test_a_new_party_is_a_member(self):
        phone = number()
        [party] = self.clerk.create_parties(("王小花", f"{phone[:3]} {phone[3:7]} {phone[7:]}"))
        self.reunion.once()
        self.assertEqual(self.name(phone), "王小花")
        [row] = self.reunion.explain(phone)["records"]
        self.assertEqual((row["source"], row["record_id"]), ("erp", str(party)))

    def test_parties_of_one_transaction_all_arrive_though_they_have_one_time(self):
        phones = [number() for _ in range(300)]
        parties = self.clerk.create_parties(*(("同批", phone) for phone in phones))
        times = self.fetch("select count(distinct create_date) from party_party where id = any(%s)", parties)
        self.assertEqual(times, (1,))
        self.assertEqual(self.reunion.once()["new"], 300)
        self.assertEqual(len(self.reunion.query("select * from members where name = '同批'")), 300)

    def test_a_changed_phone_arrives_though_its_party_was_not_touched(self):
        old, new = number(), number()
        [party] = self.clerk.create_parties(("李四", old))
        self.reunion.once()
        touched = "select create_date, write_date from party_party where id = %s"
        self.let_a_day_pass()
        before = self.fetch(touched, party)
        self.clerk.change_phone(party, new)
        self.assertEqual(self.fetch(touched, party), before)
        self.reunion.once()
        self.assertIsNone(self.name(old))
        self.assertEqual(self.name(new), "李四")
        self.assertEqual(self.reunion.explain(old)["records"], [])

    def test_a_deleted_party_goes_with_the_next_sweep(self):
        phone = number()
        [party] = self.clerk.create_parties(("赵六", phone))
        self.reunion.once()
        self.let_a_day_pass()
        self.clerk.delete_party(party)
        self.assertEqual(self.reunion.once()["deleted"], 0)
        self.assertEqual(self.reunion.once("--sweep", "erp")["deleted"], 1)
        self.assertIsNone(self.name(phone))
        self.assertEqual(self.reunion.explain(phone)["records"], [])

    def test_a_merged_party_leaves_its_orders_to_the_one_that_stays(self):
        gone, stays = number(), number()
        silent, source, destination = self.clerk.create_parties(("孙七", None), ("孙七", gone), ("孙七", stays))
        self.clerk.sell(silent, date(2025, 2, 9), "5.00")
        self.clerk.sell(source, date(2025, 3, 10), "100.00")
        self.clerk.sell(destination, date(2025, 4, 11), "20.50")
        self.reunion.once()
        self.assertEqual((self.orders(gone)[0], self.orders(stays)[0]), (1, 1))
        # Nothing of the destination is touched.
        self.let_a_day_pass()
        self.clerk.merge_party(silent, destination)
        self.reunion.once()
        self.assertEqual(self.orders(stays), (2, 25.5, date(2025, 4, 11)))
        self.let_a_day_pass()
        self.clerk.merge_party(source, destination)
        self.reunion.once()
        self.assertIsNone(self.name(gone))
        self.assertEqual(self.orders(stays), (3, 125.5, date(2025, 4, 11)))
        [row] = self.reunion.query(f"select reason from quarantine where record_id = '{source}'")
        self.assertEqual(row["reason"], "phone_missing")

    def test_orders_count_when_they_are_confirmed_and_returns_are_taken_off(self):
        phone = number()
        [party] = self.clerk.create_parties(("周八", phone))
        self.reunion.once()
        self.assertEqual(self.orders(phone), (0, 0, None))
        self.let_a_day_pass()
        self.clerk.sell(party, date(2025, 3, 10), "49.50", 2)
        again = self.clerk.sell(party, date(2025, 3, 12), "10.00")
        self.reunion.once()
        self.assertEqual(self.orders(phone), (2, 109, date(2025, 3, 12)))
        # Half a year and more ago: a task for the one who calls.
        [member] = self.reunion.explain(phone)["members"]
        self.assertEqual([task["state"] for task in member["tasks"]], ["accepted"])
        self.let_a_day_pass()
        self.clerk.bring_back(again)
        self.reunion.once()
        self.assertEqual(self.orders(phone), (1, 99, date(2025, 3, 10)))

    def test_what_is_committed_late_is_not_lost(self):
        late, old, new = number(), number(), number()
        [other] = self.clerk.create_parties(("原名", old))
        self.reunion.once()
        created = []
        slow = threading.Thread(target=lambda: created.extend(self.clerk.create_parties(("迟到", late))))
        with self.tryton.postgres.connect(tryton.DATABASE) as lock, lock.transaction():
            # The new party is written, its address has to wait: a long transaction, as of an import.
            lock.execute("lock table party_address in share mode")
            slow.start()
            self.wait_for("select count(*) = 1 from pg_locks where not granted")
            self.clerk.rename(other, "新名")
            self.clerk.change_phone(other, new)
            self.reunion.once()
            self.assertEqual(self.name(new), "新名")
            self.assertIsNone(self.name(late))
        slow.join(WAIT_SECS_MAX)
        # All of it is older than what was read before.
        for table, party in (("party_party", "id"), ("party_contact_mechanism", "party")):
            times = f"select max(create_date) filter (where {party} = %s) < max(write_date) filter (where {party} = %s) from {table}"
            self.assertEqual(self.fetch(times, created[0], other), (True,))
        self.reunion.once()
        self.assertEqual(self.name(late), "迟到")

    def wait_for(self, sql):
        give_up = time.monotonic() + WAIT_SECS_MAX
        while self.fetch(sql) != (True,):
            self.assertLess(time.monotonic(), give_up, sql)
            time.sleep(0.02)
