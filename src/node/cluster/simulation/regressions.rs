//! Schedules that once went wrong.

use super::Fault::*;
use super::Step::*;
use super::run;

#[test]
fn the_first_words_of_a_node_are_asked_for_though_only_its_head_tells_of_them() {
    run(
        6905072377747875880,
        2,
        vec![Cut(2, Down), Join(3, 1, 3, 78), Pass(32)],
    );
}

#[test]
fn what_is_published_while_the_bus_is_away_reaches_who_subscribed_meanwhile() {
    let steps = [Outage(Down), Join(1, 4, 3, 21), Pass(16), Publish(2, 4, 1, false)];
    run(10673448082747022341, 4, steps.to_vec());
}

#[test]
fn the_first_words_on_a_topic_are_asked_for_when_a_split_swallowed_them() {
    let steps = [
        Join(2, 1, 1, 33),
        Pass(7579),
        Publish(1, 1, 4, false),
        Part(11),
        Pass(8),
    ];
    run(17851380469390983906, 3, steps.to_vec());
}

#[test]
fn who_beats_more_often_loses_nobody() {
    let steps = [
        Pass(578),
        Publish(0, 5, 1, true),
        Join(2, 3, 1, 202),
        Join(2, 5, 2, 124),
        Publish(1, 1, 2, true),
        Outage(Down),
        Outage(Unanswered),
        Pass(2707),
        Pass(2763),
    ];
    run(8743907484736010144, 4, steps.to_vec());
}
