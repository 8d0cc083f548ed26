"""A clerk who works in a Tryton through its own JSON-RPC."""

import base64
import json
import urllib.request

import tryton

CALL_SECS_MAX = 60


class Clerk:
    """Somebody at a desk. Each edit is one call, and so one transaction."""

    def __init__(self, url):
        self.url = url
        self.headers = {"Content-Type": "application/json"}
        user, token, *_ = self.call("common.db.login", "admin", {"password": tryton.PASSWORD})
        session = base64.b64encode(f"admin:{user}:{token}".encode()).decode()
        self.headers["Authorization"] = f"Session {session}"
        self.context = {}
        [self.currency] = self.call_model("currency.currency", "create", [{"name": "Yuan", "code": "CNY", "symbol": "¥"}])
        [house] = self.create_parties(("本公司", None))
        [company] = self.call_model("company.company", "create", [{"party": house, "currency": self.currency}])
        self.call_model("res.user", "write", [user], {"companies": [["add", [company]]], "company": company})
        self.context = {"company": company}

    def call(self, method, *params):
        body = json.dumps({"id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, self.headers)
        with urllib.request.urlopen(request, timeout=CALL_SECS_MAX) as response:
            answer = json.load(response)
        assert not answer.get("error"), f"{method}: {answer['error']}"
        return answer["result"]

    def call_model(self, model, method, *params):
        return self.call(f"model.{model}.{method}", *params, self.context)

    def create_parties(self, *parties):
        """New parties of these (name, phone), all in one transaction; their ids."""

        def values(name, phone):
            mechanisms = [["create", [{"type": "mobile", "value": phone}]]] if phone else []
            return {"name": name, "contact_mechanisms": mechanisms, "addresses": [["create", [{}]]]}

        return self.call_model("party.party", "create", [values(*party) for party in parties])

    def rename(self, party, name):
        self.call_model("party.party", "write", [party], {"name": name})

    def change_phone(self, party, phone):
        """Writes over the only phone of a party, as its form does."""
        [mechanism] = self.call_model("party.party", "read", [party], ["contact_mechanisms"])[0]["contact_mechanisms"]
        self.call_model("party.contact_mechanism", "write", [mechanism], {"value": phone})

    def delete_party(self, party):
        self.call_model("party.party", "delete", [party])

    def merge_party(self, source, destination):
        """The wizard `Replace`: all that the source has is the destination's from then on."""
        session, *_ = self.call("wizard.party.replace.create", self.context)
        ask = {"ask": {"source": source, "destination": destination}}
        self.call("wizard.party.replace.execute", session, ask, "replace", self.context)
        self.call("wizard.party.replace.delete", session, self.context)

    def sell(self, party, day, price, quantity=1):
        """An order of a day, up to its confirmation; its id."""
        [address] = self.call_model("party.party", "read", [party], ["addresses"])[0]["addresses"]
        line = {
            "type": "line",
            "description": "Shirt",
            "quantity": float(quantity),
            "unit_price": {"__class__": "Decimal", "decimal": price},
        }
        sale = {
            "party": party,
            "company": self.context["company"],
            "currency": self.currency,
            "sale_date": {"__class__": "date", "year": day.year, "month": day.month, "day": day.day},
            "invoice_address": address,
            "shipment_address": address,
            "invoice_method": "manual",
            "shipment_method": "manual",
            "lines": [["create", [line]]],
        }
        [made] = self.call_model("sale.sale", "create", [sale])
        self.confirm(made)
        return made

    def bring_back(self, sale):
        """The wizard `Return Sale`: all of an order comes back."""
        context = self.context | {"active_model": "sale.sale", "active_id": sale, "active_ids": [sale]}
        session, *_ = self.call("wizard.sale.return_sale.create", context)
        self.call("wizard.sale.return_sale.execute", session, {}, "return_", context)
        self.call("wizard.sale.return_sale.delete", session, context)
        [made] = self.call_model("sale.sale", "search", [["origin", "=", f"sale.sale,{sale}"]], 0, None, None)
        self.confirm(made)

    def confirm(self, sale):
        self.call_model("sale.sale", "quote", [sale])
        self.call_model("sale.sale", "confirm", [sale])
