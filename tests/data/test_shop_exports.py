"""Exports of GA4, Segment, Shopify and WooCommerce are read as they are, with a line that says what was taken."""

from __future__ import annotations

import json

import polars as pl
import pytest

import palate
from palate.data.frame import to_frame
from palate.data.readers import read_interactions
from palate.errors import DataError


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def rows(dataset):
    return sorted(to_frame(dataset).select("user_id", "item_id").rows())


def notes(dataset):
    return [str(note) for note in dataset.notes]


GA4 = [
    {"event_name": "page_view", "event_timestamp": "1700000000000000", "user_pseudo_id": "1.1", "items": []},
    {
        "event_name": "view_item",
        "event_timestamp": "1700000001000000",
        "user_pseudo_id": "1.1",
        "user_id": "ann",
        "event_params": [{"key": "page", "value": {"string_value": "x"}}],
        "items": [{"item_id": "007", "item_name": "tea", "quantity": 1}],
    },
    {
        "event_name": "purchase",
        "event_timestamp": "1700000002000000",
        "user_pseudo_id": "2.2",
        "items": [{"item_id": "007", "price": 2.5}, {"item_id": "p2"}],
    },
]


@pytest.mark.parametrize("array", [False, True])
def test_ga4(tmp_path, array):
    path = lines(tmp_path / "ga4.json", GA4)
    if array:
        path.write_text(json.dumps(GA4))
    dataset = read_interactions(path)
    assert rows(dataset) == [("1.1", "007"), ("2.2", "007"), ("2.2", "p2")]
    assert dataset.interactions.time.min() == 1_700_000_001
    assert any("GA4" in line and "items.item_id" in line and line.endswith("3 rows") for line in notes(dataset))
    assert "dropped: row of the export without item: 1 row" in notes(dataset)
    weighted = read_interactions(path, event="event_name", event_weights={"view_item": 1, "purchase": 10})
    assert sorted(weighted.interactions.weight.tolist()) == [1, 10, 10]
    # A named column is taken at its word.
    with pytest.raises(DataError, match="no column 'nobody'"):
        read_interactions(path, user="nobody")


def test_segment_takes_the_anonymous_id_before_a_login_and_the_products_of_an_order(tmp_path):
    def track(event, properties, user, minute):
        return {
            "type": "track",
            "event": event,
            "userId": user,
            "anonymousId": "anon-1",
            "timestamp": f"2024-05-01T10:0{minute}:00Z",
            "properties": properties,
        }

    dataset = read_interactions(
        lines(
            tmp_path / "segment.jsonl",
            [
                track("Product Viewed", {"product_id": "p1"}, None, 0),
                track("Product Viewed", {"product_id": "p2"}, "ann", 1),
                track("Order Completed", {"products": [{"product_id": "p2"}, {"product_id": "p3"}]}, "ann", 2),
                track("Signed Up", {"plan": "x"}, "ann", 3),
            ],
        )
    )
    assert rows(dataset) == [("ann", "p2"), ("ann", "p3"), ("anon-1", "p1")]
    assert "dropped: row of the export without item: 1 row" in notes(dataset)


def test_segment_as_a_table_of_a_warehouse(tmp_path):
    path = tmp_path / "tracks.csv"
    path.write_text(
        "id,anonymous_id,user_id,event,product_id,timestamp\n"
        "1,a1,,product_viewed,p1,2024-05-01 10:00:00\n"
        "2,a1,u1,product_viewed,p2,2024-05-01 10:01:00\n"
        "3,a1,u1,signed_up,,2024-05-01 10:02:00\n"
    )
    assert rows(read_interactions(path)) == [("a1", "p1"), ("u1", "p2")]


def test_shopify_orders_repeat_the_customer_of_an_order_and_name_items_without_a_sku(tmp_path):
    path = tmp_path / "orders_export.csv"
    path.write_text(
        "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
        "#1001,ann@shop.example,paid,2024-05-01 10:00:00 +0200,2,Green tea,4.00,TEA-1\n"
        "#1001,,,,1,Cup,9.00,CUP-1\n"
        "#1002,bob@shop.example,paid,2024-05-02 10:00:00 +0200,3,Gift card,10.00,\n"
        "#1003,,paid,2024-05-02 10:00:00 +0200,1,Cup,9.00,CUP-1\n"
    )
    dataset = read_interactions(path)
    assert rows(dataset) == [
        ("ann@shop.example", "CUP-1"),
        ("ann@shop.example", "TEA-1"),
        ("bob@shop.example", "Gift card"),
    ]
    assert sorted(dataset.interactions.weight.tolist()) == [1, 2, 3]
    assert dataset.interactions.time.min() == 1_714_550_400
    assert "dropped: row of the export without user: 1 row" in notes(dataset)  # #1003 is another order


def test_woocommerce_orders_keep_guests_apart_by_their_address(tmp_path):
    def order(customer, email, *items):
        return {
            "id": 7,
            "customer_id": customer,
            "date_created": "2024-05-01T10:00:00",
            "billing": {"email": email, "city": "Oslo"},
            "line_items": [{"product_id": item, "quantity": quantity} for item, quantity in items],
        }

    dataset = read_interactions(
        lines(
            tmp_path / "orders.json",
            [order(12, "a@x.example", (93, 2), (22, 1)), order(0, "b@x.example", (93, 4)), order(0, "", (22, 1))],
        )
    )
    assert rows(dataset) == [("12", 22), ("12", 93), ("b@x.example", 93)]
    assert sorted(dataset.interactions.weight.tolist()) == [1, 2, 4]
    assert "dropped: row of the export without user: 1 row" in notes(dataset)


def test_shopify_orders_of_the_api(tmp_path):
    path = tmp_path / "orders.json"
    orders = [
        {
            "id": 1,
            "email": email,
            "created_at": "2024-05-01T10:00:00+02:00",
            "customer": {"id": customer},
            "line_items": [{"product_id": item, "variant_id": 10 * item, "quantity": 2} for item in items],
        }
        for email, customer, items in (("a@x.example", 5, (1, 2)), ("b@x.example", 6, (2,)))
    ]
    path.write_text(json.dumps({"orders": orders}))
    assert rows(read_interactions(path)) == [("5", 1), ("5", 2), ("6", 2)]


def test_atomic_files_of_recbole_need_no_option(tmp_path):
    path = tmp_path / "shop.inter"
    path.write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ti1\t4\t10\nu2\ti2\t5\t20\n")
    dataset = read_interactions(path)
    assert rows(dataset) == [("u1", "i1"), ("u2", "i2")]
    assert dataset.interactions.weight.tolist() == [4, 5]


def test_tables_of_rectools_come_back_as_they_went():
    log = pl.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 1, 2], "weight": [1.0, 2.0, 3.0]}).with_columns(
        datetime=pl.Series(["2024-05-01 10:00:00", "2024-05-02 00:00:00", "2024-05-03 00:00:00"]).str.to_datetime()
    )
    dataset = palate.from_frame(log)
    back = palate.to_rectools(dataset)
    assert list(back.columns) == ["user_id", "item_id", "weight", "datetime"]
    assert str(back["datetime"].dtype).startswith("datetime64")
    assert sorted(pl.from_pandas(back).rows()) == sorted(log.rows())
