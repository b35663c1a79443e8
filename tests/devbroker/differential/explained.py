"""Where the dev broker is not RabbitMQ: deliberately, or not yet."""

EXPLAINED: dict[str, str] = {}
"""Scenarios with the reason why the difference stays."""

OPEN = {
    "a_quorum_queue_takes_back_many": "a quorum queue counts who holds what it got",
    "a_quorum_queue_is_purged_and_deleted": "the same",
    "deaths_for_different_reasons_stand_side_by_side": "x-death after two rejections",
    "x_death_of_the_client_is_read": "a count of another integer type begins anew",
    "priorities_expire_by_themselves": "lanes behind one that stays expire too early",
}
"""Scenarios in which the dev broker is wrong, and what was seen there."""
