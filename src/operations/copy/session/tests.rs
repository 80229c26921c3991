#![allow(clippy::unwrap_used)]

use guest_protocol::{
    complete_message, encode_framed, error_message, init_message, progress_message,
};

use super::*;

fn frame(message: &GuestMessage) -> Vec<u8> {
    let mut buffer = [0; 512];
    let len = encode_framed(message, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn receive(session: &mut Session, message: &GuestMessage) -> Result<(), ProtocolError> {
    session.receive(ReportSource::Serial, &frame(message), |_| {})
}

#[test]
fn a_complete_copy_is_a_success() {
    let mut session = Session::new(Protocol::Protobuf, 50);
    assert!(session.verdict().is_err());
    receive(&mut session, &progress_message("copy", 50, 50, 100)).unwrap();
    receive(&mut session, &complete_message("copy", 50, true)).unwrap();
    session.verdict().unwrap();
}

#[test]
fn success_with_another_count_is_none() {
    for (count, success) in [(49, true), (51, true), (50, false)] {
        let mut session = Session::new(Protocol::Protobuf, 50);
        receive(&mut session, &complete_message("copy", count, success)).unwrap();
        assert!(session.verdict().is_err());
    }
}

#[test]
fn success_after_an_error_is_none_and_the_error_is_the_reason() {
    for op in ["read", "verify"] {
        let mut session = Session::new(Protocol::Protobuf, 50);
        receive(&mut session, &error_message(op, "input", 7, 1, "")).unwrap();
        receive(&mut session, &complete_message("copy", 50, true)).unwrap();
        let line = format!("[ERROR] error op={op} device=input sector=7 status=1");
        for said in [session.verdict().unwrap_err(), session.complaint().unwrap()] {
            assert!(said.contains(&line), "{said}");
        }
    }
}

#[test]
fn a_guest_that_says_nothing_is_told_what_it_has_to_say() {
    let session = Session::new(Protocol::Protobuf, 50);
    let verdict = session.verdict().unwrap_err();
    for part in ["without a completion", "docs/guest.md", "--protocol text"] {
        assert!(verdict.contains(part), "{verdict}");
    }
    // Its status says more than advice would.
    assert_eq!(session.complaint().as_deref(), Some(NO_COMPLETION));
}

#[test]
fn progress_rises_and_ends_with_the_true_total() {
    for (current, total, complaint) in [
        (5, 50, "does not rise: 5 sectors after 5"),
        (0, 50, "does not rise: 0 sectors after 5"),
        (51, 50, "that 51 sectors are done, but the disk has 50"),
        (6, 60, "there are 60 sectors, but the disk has 50"),
    ] {
        let mut session = Session::new(Protocol::Protobuf, 50);
        receive(&mut session, &progress_message("copy", 5, 50, 10)).unwrap();
        let error = receive(&mut session, &progress_message("copy", current, total, 10));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_digest_is_there_if_and_only_if_it_is_wanted() {
    let with = |digest: &[u8]| guest_protocol::complete_with_digest("copy", 50, digest, 0);
    let wanting = || Session::new(Protocol::Protobuf, 50).wanting_digest(true);
    let mut session = wanting();
    receive(&mut session, &with(&[0xab; 32])).unwrap();
    session.verdict().unwrap();
    assert_eq!(session.digest(), Some("ab".repeat(32)));

    let mut session = wanting();
    receive(&mut session, &complete_message("copy", 50, true)).unwrap();
    assert!(session.verdict().unwrap_err().contains("no digest"));
    for len in [1, 31, 33] {
        let error = receive(&mut wanting(), &with(&vec![1; len]));
        assert_eq!(error, Err(ProtocolError::Digest(len)));
    }
    let mut session = Session::new(Protocol::Protobuf, 50);
    let error = receive(&mut session, &with(&[1; 32]));
    assert_eq!(error, Err(ProtocolError::Digest(32)));
}

#[test]
fn a_flood_of_messages_or_text_ends_the_session() {
    let mut session = Session::new(Protocol::Protobuf, 50);
    let flood =
        (0..1000).find_map(|_| receive(&mut session, &init_message("probe", "input", 0)).err());
    assert_eq!(flood, Some(ProtocolError::Flood("a copy")));
    let mut session = Session::new(Protocol::Text, 50);
    let flood = (0..1000).find_map(|_| session.take_text(4096).err());
    assert_eq!(flood, Some(ProtocolError::Flood("a copy")));
}

#[test]
fn nothing_follows_the_completion() {
    let mut session = Session::new(Protocol::Protobuf, 50);
    let done = complete_message("copy", 50, true);
    receive(&mut session, &done).unwrap();
    assert_eq!(
        receive(&mut session, &done),
        Err(ProtocolError::AfterCompletion)
    );
}

#[test]
fn the_first_fault_is_reported_however_the_bytes_arrive() {
    let no_content = [0, 0];
    let too_long = [0, 0x1b];
    let mut session = Session::new(Protocol::Protobuf, 50);
    let error = session.receive(
        ReportSource::Serial,
        &[no_content, too_long].concat(),
        |_| {},
    );
    assert_eq!(error, Err(ProtocolError::Shape));
}

#[test]
fn a_message_must_have_the_level_of_its_kind_and_a_frame_its_end() {
    let mut session = Session::new(Protocol::Protobuf, 50);
    let mut message = complete_message("copy", 50, true);
    message.level = Level::Info.into();
    assert_eq!(receive(&mut session, &message), Err(ProtocolError::Shape));

    let mut session = Session::new(Protocol::Protobuf, 50);
    let mut bytes = frame(&complete_message("copy", 50, true));
    bytes.push(7);
    session
        .receive(ReportSource::Serial, &bytes, |_| {})
        .unwrap();
    assert!(session.verdict().unwrap_err().contains("middle"));
}
