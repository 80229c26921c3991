//! What a guest may say of an image, and what not.
#![allow(clippy::unwrap_used)]

use guest_protocol::{
    CheckMessage, FeatureMessage, FindingMessage, GuestMessage, ImageMessage, ProblemMessage,
    ReferenceMessage, SnapshotMessage, complete_message, encode_framed, error_message,
    info_message, init_message,
};

use super::*;
use crate::operations::inspect::Verdict;

fn frame(message: &GuestMessage) -> Vec<u8> {
    let mut buffer = [0; 4098];
    let len = encode_framed(message, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn image() -> ImageMessage {
    ImageMessage {
        format: "qcow2".to_owned(),
        fitting: vec!["qcow2".to_owned()],
        ..ImageMessage::default()
    }
}

fn finding(name: &str) -> FindingMessage {
    FindingMessage {
        name: name.to_owned(),
        ..FindingMessage::default()
    }
}

/// A session for `task` to which these were said, and the first fault.
fn said(task: ImageTask, payloads: Vec<Payload>) -> (Session, Option<ProtocolError>) {
    let mut session = Session::new(task);
    let mut messages = payloads.into_iter().map(info_message);
    let error = messages.find_map(|message| session.receive(&frame(&message)).err());
    (session, error)
}

fn info(payloads: Vec<Payload>) -> (Session, Option<ProtocolError>) {
    let first = Payload::Image(image());
    said(ImageTask::Info, [vec![first], payloads].concat())
}

fn complete(session: &mut Session, count: u64, success: bool) {
    let message = complete_message("info", count, success);
    session.receive(&frame(&message)).unwrap();
}

#[test]
fn an_answer_is_whole_when_its_completion_counts_what_came() {
    for (count, whole) in [(2, true), (1, false), (3, false)] {
        let (mut session, error) = info(vec![Payload::Finding(finding("backing-file"))]);
        assert_eq!(error, None);
        assert!(session.verdict().is_err());
        complete(&mut session, count, true);
        assert_eq!(session.verdict().is_ok(), whole);
    }
    // Nothing at all was said.
    let mut session = Session::new(ImageTask::Info);
    complete(&mut session, 0, true);
    assert!(session.verdict().is_err());
}

#[test]
fn a_guest_that_gives_up_is_asked_why() {
    let mut session = Session::new(ImageTask::Info);
    let failure = error_message("read", "input", 5, 255, "the disk is on fire");
    session.receive(&frame(&failure)).unwrap();
    complete(&mut session, 1, false);
    let error = session.verdict().unwrap_err();
    assert!(
        error.contains("gave up") && error.contains("on fire"),
        "{error}"
    );
    // What it has said is not the whole answer, whatever it claims.
    let (mut session, _) = info(Vec::new());
    session.receive(&frame(&failure)).unwrap();
    complete(&mut session, 2, true);
    let error = session.verdict().unwrap_err();
    assert!(error.contains("failed: ") && error.contains("on fire"));
}

#[test]
fn each_message_has_the_level_of_its_kind() {
    let complete = || complete_message("info", 0, true);
    let failure = || error_message("read", "input", 5, 255, "the disk is on fire");
    let told = || info_message(Payload::Image(image()));
    for (message, level) in [
        (complete(), Level::Info),
        (complete(), Level::Error),
        (failure(), Level::Info),
        (told(), Level::Error),
        (told(), Level::Complete),
    ] {
        let message = GuestMessage {
            level: level.into(),
            ..message
        };
        let received = Session::new(ImageTask::Info).receive(&frame(&message));
        assert_eq!(received, Err(ProtocolError::Shape), "{message:?}");
    }
}

#[test]
fn formats_and_reasons_exist_and_words_are_plain() {
    let with = |change: fn(&mut ImageMessage)| {
        let mut image = image();
        change(&mut image);
        said(ImageTask::Info, vec![Payload::Image(image)]).1
    };
    for change in [
        (|image| image.format = "qcow9".to_owned()) as fn(&mut ImageMessage),
        |image| image.format.clear(),
        |image| image.fitting.push("safe\n".to_owned()),
        |image| image.partitions = "none".to_owned(),
        |image| image.variant = "two words".to_owned(),
        |image| image.compression = "\u{1b}[2J".to_owned(),
        |image| image.encryption = "x".repeat(41),
        |image| image.file_system = "é".to_owned(),
        |image| {
            image.features = vec![FeatureMessage {
                name: "a:b".to_owned(),
                ..FeatureMessage::default()
            }];
        },
    ] {
        assert!(matches!(with(change), Some(ProtocolError::Word(_))));
    }
    assert_eq!(
        with(|image| image.variant = "streamOptimized".to_owned()),
        None
    );

    let long = FindingMessage {
        text: "x".repeat(201),
        ..finding("truncated")
    };
    let not_to_be_allowed = FindingMessage {
        allowed: true,
        ..finding("data-file")
    };
    for wrong in [finding(""), finding("safe"), long, not_to_be_allowed] {
        let (_, error) = info(vec![Payload::Finding(wrong)]);
        assert_eq!(error, Some(ProtocolError::Word("a reason")));
    }
}

#[test]
fn another_file_is_to_an_image_what_a_parser_can_say() {
    let said = |kind: &str| {
        let reference = ReferenceMessage {
            kind: kind.to_owned(),
            name: b"safe".to_vec(),
        };
        info(vec![Payload::Reference(reference)]).1
    };
    use guest_formats::ReferenceKind::{Backing, BackingFormat, Data, Extent, Parent};
    let kinds = [Backing, BackingFormat, Data, Extent, Parent];
    assert_eq!(kinds.map(|kind| kind.name()), REFERENCE_KINDS);
    for kind in REFERENCE_KINDS {
        assert_eq!(said(kind), None);
    }
    for kind in ["verdict", "", "Backing", "backing "] {
        let error = ProtocolError::Word("what a file is to the image");
        assert_eq!(said(kind), Some(error), "{kind:?}");
    }
}

/// What is larger on the guest's side would be refused, and what is smaller there cut without notice.
#[test]
fn the_limits_are_those_of_the_parsers() {
    assert_eq!(LONGEST_NAME, guest_formats::LONGEST_NAME);
    assert_eq!(MOST_REFERENCES, guest_formats::MOST_REFERENCES);
    assert_eq!(MOST_PROBLEMS, guest_formats::MOST_FAULTS);
}

#[test]
fn each_kind_of_message_comes_so_often_and_no_more() {
    let reference = Payload::Reference(ReferenceMessage {
        kind: "backing".to_owned(),
        name: vec![0xff; 1024],
    });
    let snapshot = Payload::Snapshot(SnapshotMessage::default());
    let finding = Payload::Finding(finding("truncated"));
    for (payload, most) in [(reference, 16), (snapshot, 256), (finding, 64)] {
        assert_eq!(info(vec![payload.clone(); most]).1, None);
        let flood = ProtocolError::Flood("a look into an image");
        assert_eq!(info(vec![payload; most + 1]).1, Some(flood));
    }
    let long = Payload::Reference(ReferenceMessage {
        kind: "backing".to_owned(),
        name: vec![0; 1025],
    });
    assert!(matches!(info(vec![long]).1, Some(ProtocolError::Word(_))));
}

#[test]
fn what_has_no_place_ends_the_conversation() {
    let shape = Some(ProtocolError::Shape);
    // Nothing comes before the image, which comes once.
    let early = said(
        ImageTask::Info,
        vec![Payload::Finding(finding("truncated"))],
    );
    assert_eq!(early.1, shape);
    assert_eq!(info(vec![Payload::Image(image())]).1, shape);
    // A check is said of a check alone, and once.
    let check = Payload::Check(CheckMessage::default());
    let problem = Payload::Problem(ProblemMessage {
        name: "leak".to_owned(),
        ..ProblemMessage::default()
    });
    assert_eq!(info(vec![check.clone()]).1, shape);
    assert_eq!(info(vec![problem.clone()]).1, shape);
    let checked = vec![Payload::Image(image()), problem, check.clone()];
    assert_eq!(said(ImageTask::Check, checked.clone()).1, None);
    assert_eq!(
        said(ImageTask::Check, [checked, vec![check]].concat()).1,
        shape
    );
    // What a copy says has no place here, and nothing follows the completion.
    let (mut session, _) = info(vec![]);
    let copying = frame(&init_message("probe", "input", 0));
    assert_eq!(session.receive(&copying), Err(ProtocolError::Shape));
    let (mut session, _) = info(vec![]);
    complete(&mut session, 1, true);
    let again = frame(&complete_message("info", 1, true));
    assert_eq!(session.receive(&again), Err(ProtocolError::AfterCompletion));
}

#[test]
fn the_verdict_follows_from_the_reasons_that_count() {
    let verdict = |findings: Vec<FindingMessage>| {
        let (session, error) = info(findings.into_iter().map(Payload::Finding).collect());
        assert_eq!(error, None);
        session.answer().unwrap().verdict()
    };
    let broken = FindingMessage {
        broken: true,
        ..finding("truncated")
    };
    let allowed = FindingMessage {
        allowed: true,
        ..finding("backing-file")
    };
    assert_eq!(verdict(vec![]), Verdict::Safe);
    assert_eq!(verdict(vec![allowed.clone()]), Verdict::Safe);
    assert_eq!(
        verdict(vec![finding("data-file"), allowed]),
        Verdict::Refused
    );
    assert_eq!(verdict(vec![finding("data-file"), broken]), Verdict::Broken);
}

#[test]
fn a_check_that_was_not_made_is_no_sound_image() {
    let soundness = |check: Option<CheckMessage>| {
        let check = check.map(Payload::Check);
        let first = Payload::Image(image());
        let (session, error) = said(ImageTask::Check, [first].into_iter().chain(check).collect());
        assert_eq!(error, None);
        session.answer().unwrap().soundness()
    };
    let check = |errors, leaks| {
        Some(CheckMessage {
            errors,
            leaks,
            ..CheckMessage::default()
        })
    };
    assert_eq!(soundness(None), Verdict::Refused);
    assert_eq!(soundness(check(0, 0)), Verdict::Safe);
    assert_eq!(soundness(check(0, 1)), Verdict::Leaks);
    assert_eq!(soundness(check(1, 1)), Verdict::Broken);
}

#[test]
fn headers_that_contradict_themselves_are_broken_whatever_the_check_found() {
    for (broken, soundness) in [(true, Verdict::Broken), (false, Verdict::Safe)] {
        let messages = vec![
            Payload::Image(image()),
            Payload::Finding(FindingMessage {
                broken,
                ..finding("truncated")
            }),
            Payload::Check(CheckMessage::default()),
        ];
        let (session, error) = said(ImageTask::Check, messages);
        assert_eq!(error, None);
        assert_eq!(session.answer().unwrap().soundness(), soundness);
    }
}
