//! One session with Redis: two connections, for as long as both of them answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::{
    interfaces::{EventInterface as _, PubsubInterface as _, StreamsInterface},
    types::{Message, Value},
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
    try_join,
};

use super::{
    answer::{self, Entered, Look, Turn},
    entry::{Entry, Line, Mark, spelled},
    place::{Decision, Place, Step},
    roster::{Appended, Census},
    shared::{APPEND, Shared},
};
use crate::{
    fence::{LogId, Purge},
    purge::{NodeId, Retention, Rise, random},
    redis::{Client, Purpose},
};

/// How long one `XREAD` waits for the next record.
const WAIT: Duration = Duration::from_millis(500);
/// From one look at the whole to the next.
const LOOK: Duration = Duration::from_secs(1);
/// Records that one `XREAD` brings. Each may be as large as a call's body, a MiB.
const WOKEN: u64 = 16;
/// Bytes of records that are read at a time while there are more.
const BATCH: usize = 1 << 20;
/// How often another log is begun in a row before it is given up.
const RENEWALS: u32 = 3;
/// How long it is remembered that a record was appended that must be appended once: a day.
const REMEMBERED: u64 = 86_400_000;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What Redis says, or the connection.
    #[error(transparent)]
    Redis(#[from] fred::error::Error),
    /// It hangs.
    #[error("no answer after {} ms", .0.as_millis())]
    Silent(Duration),
    /// It answers, but not as Redis does.
    #[error("an answer that cannot be read")]
    Answer,
    /// Whatever log begins, it is not there afterwards.
    #[error("the log does not last")]
    Unsettled,
}

/// The connection that appends, and everything else that does not wait for records.
pub(super) struct Appender {
    pub(super) client: Client,
}

/// What has to be reached before a node may say that it knows everything.
struct Goal {
    /// When it was asked how far the log goes.
    asked: Instant,
    seq: u64,
    /// The nodes then. None where others do not wait for this one for the next three seconds.
    lease: Option<Census>,
}

/// Holds a session until it fails, and moves `place` along with what is applied.
pub(super) async fn hold(shared: &Shared, place: &mut Place) -> Failure {
    let (tail, appender) = match open(shared).await {
        Ok(connections) => connections,
        Err(failure) => return failure,
    };
    let messages = match subscribe(shared, &appender).await {
        Ok(messages) => messages,
        Err(failure) => return failure,
    };
    let appender = Arc::new(appender);
    tokio::select! {
        failure = Box::pin(follow(shared, &tail, &appender, place)) => failure,
        failure = report(shared, &appender) => failure,
        failure = listen(shared, messages) => failure,
    }
}

async fn open(shared: &Shared) -> Result<(Client, Appender), Failure> {
    let connector = &shared.connector;
    let tail = Box::pin(connector.connected(Purpose::Watched(WAIT + shared.patience())));
    // Each of a hundred nodes may report each of many purges at once.
    let appender = Box::pin(connector.connected(Purpose::Listening(APPEND)));
    let (tail, client) =
        within(connector.connect_deadline(), async { Ok(try_join!(tail, appender)?) }).await?;
    Ok((tail, Appender { client }))
}

/// Listens to what others tell this node. Where that is not allowed it hears of it a second later, as it
/// looks.
async fn subscribe(shared: &Shared, appender: &Appender) -> Result<Receiver<Message>, Failure> {
    let messages = appender.client.message_rx();
    let channel = shared.keys.channel(shared.node);
    let subscribed = Box::pin(appender.client.subscribe(channel));
    match within(APPEND, async { Ok(subscribed.await) }).await? {
        Err(error) if appender.client.has_ended() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "Redis lets nobody listen: purges are acknowledged late");
        }
        Ok(()) => {}
    }
    Ok(messages)
}

/// Takes in what other nodes tell.
async fn listen(shared: &Shared, mut messages: Receiver<Message>) -> Failure {
    loop {
        match messages.recv().await {
            Ok(message) => {
                if let Some((node, place)) = answer::report(&message.value) {
                    shared.reported(node, place);
                }
            }
            // What was missed is told again at the next look.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Tells those who wait for it how far this node has come.
async fn report(shared: &Shared, appender: &Appender) -> Failure {
    loop {
        shared.owing.notified().await;
        let owed = shared.owed();
        let place = shared.fences.fence();
        let own = [shared.node.to_string(), spelled(place.log.0), place.seq.to_string()];
        let channels = owed.into_iter().map(|node| shared.keys.channel(node));
        let arguments = own.into_iter().chain(channels).collect();
        let call = (shared.keys.pair(), arguments);
        let told = shared.run::<Value>(&appender.client, &shared.scripts.report, call, APPEND);
        match within(APPEND, async { Ok(told.await) }).await {
            Err(failure) => return failure,
            Ok(Err(error)) if appender.client.has_ended() => return error.into(),
            Ok(Err(error)) => tracing::debug!(%error, "nobody was told what is applied here"),
            Ok(Ok(_)) => {}
        }
    }
}

async fn follow(
    shared: &Shared,
    tail: &Client,
    appender: &Arc<Appender>,
    place: &mut Place,
) -> Failure {
    loop {
        let round = async {
            let goal = look(shared, tail, appender, place).await?;
            read(shared, tail, appender, place, &goal).await
        };
        if let Err(failure) = round.await {
            return failure;
        }
    }
}

/// Compares the node's place with the stream until both agree. Each time it renews the lease.
async fn look(
    shared: &Shared,
    tail: &Client,
    appender: &Appender,
    place: &mut Place,
) -> Result<Goal, Failure> {
    let mut has_told = false;
    for _ in 0..RENEWALS {
        // From before it is asked for: so the lease ends here before it does for others.
        let asked = Instant::now();
        let call = (shared.keys.pair(), registration(shared, place, asked));
        let answer = shared.run(tail, &shared.scripts.look, call, shared.patience());
        let answer = within(shared.patience(), async { Ok(answer.await?) }).await?;
        let Look { sight, lease } = answer::look(&answer).ok_or(Failure::Answer)?;
        if let Some(census) = &lease {
            shared.learn(census, Instant::now());
        }
        match place.decide(&sight) {
            Decision::GoOn(seq) => return Ok(Goal { asked, seq, lease }),
            // What it has applied is not there, and others may not have heard of it. They have to know
            // before this node counts as one that has come to this log.
            Decision::Begin { rise: Some(Rise::Foreign), .. }
                if !has_told && matches!(place, Place::At(_)) =>
            {
                tell_loss(shared, appender).await?;
                has_told = true;
            }
            Decision::Begin { mark, rise, until } => {
                shared.begin(mark.fence, rise);
                shared.moved();
                *place = Place::At(mark);
                return Ok(Goal { asked, seq: until, lease });
            }
            Decision::Renew(doubted) => {
                appender.renew(shared, doubted, place.seq()).await?;
            }
        }
    }
    Err(Failure::Unsettled)
}

/// Tells all nodes that there may have been records of which they have not heard, nor ever will.
async fn tell_loss(shared: &Shared, appender: &Appender) -> Result<(), Failure> {
    tracing::warn!("records of the purge log are lost: all nodes are told");
    appender.append(shared, &Purge::loss(), None).await.map(drop)
}

/// What `look.lua` is told: where this node is, who it is, and whom it knows.
fn registration(shared: &Shared, place: &Place, now: Instant) -> Vec<String> {
    let applied = shared.fences.fence();
    let own = [
        place.id(),
        shared.node.to_string(),
        shared.fences.unsynced_ttl().as_millis().to_string(),
        spelled(applied.log.0),
        applied.seq.to_string(),
    ];
    let carried = shared.roster.lock().carried(now);
    let others = carried.into_iter().flat_map(|carried| {
        let ttl = carried.ttl.as_millis().to_string();
        [carried.node.to_string(), carried.left.to_string(), ttl]
    });
    own.into_iter().chain(others).collect()
}

/// Applies what is there and what comes, until it is time for another look.
async fn read(
    shared: &Shared,
    tail: &Client,
    appender: &Arc<Appender>,
    place: &mut Place,
    goal: &Goal,
) -> Result<(), Failure> {
    let mut is_told = false;
    // First what is there already, in pieces of a bounded size; then what comes.
    let mut is_behind = true;
    loop {
        if !is_told && place.seq() >= goal.seq {
            if let Some(census) = &goal.lease {
                shared.heard(goal.asked, appender);
                if shared.misses_a_witness(census, Instant::now()) {
                    tell_loss(shared, appender).await?;
                }
            }
            is_told = true;
        }
        let left = LOOK.saturating_sub(goal.asked.elapsed()).min(WAIT);
        let left = u64::try_from(left.as_millis()).unwrap_or_default();
        if left == 0 {
            return Ok(());
        }
        let entries = if is_behind {
            batch(shared, tail, place.id()).await?
        } else {
            awaited(shared, tail, (place.id(), left)).await?
        };
        is_behind = if is_behind { !entries.is_empty() } else { entries.len() as u64 >= WOKEN };
        let mut appended_by = Vec::new();
        for entry in entries {
            let (Place::At(mark), Some(line)) = (&mut *place, entry.line()) else {
                *place = Place::Lost;
                break;
            };
            appended_by.extend(line.by);
            advance(shared, mark, line);
        }
        shared.owe(appended_by.into_iter());
        shared.moved();
        if *place == Place::Lost {
            return Ok(());
        }
    }
}

/// The records after a place, as many as a batch holds.
async fn batch(shared: &Shared, tail: &Client, after: String) -> Result<Vec<Entry>, Failure> {
    let call = (vec![shared.keys.log.clone()], vec![after, BATCH.to_string()]);
    let answer = shared.run(tail, &shared.scripts.read, call, shared.patience());
    let answer: Value = within(shared.patience(), async { Ok(answer.await?) }).await?;
    answer::batch(&answer).ok_or(Failure::Answer)
}

/// The next few records after a place, once there are any, or none after so many milliseconds.
async fn awaited(
    shared: &Shared,
    tail: &Client,
    (after, millis): (String, u64),
) -> Result<Vec<Entry>, Failure> {
    let answer = Box::pin(tail.xread(Some(WOKEN), Some(millis), &shared.keys.log, after));
    let answer: Value = within(shared.patience() + WAIT, async { Ok(answer.await?) }).await?;
    answer::entries(&answer).ok_or(Failure::Answer)
}

/// Applies an entry, with what follows from where it stands.
fn advance(shared: &Shared, mark: &mut Mark, line: Line) {
    match mark.step(&line) {
        Step::Skip => return,
        Step::Apply => {}
        Step::BeginAndApply(fence, rise) => shared.begin(fence, Some(rise)),
    }
    shared.fences.apply(&line.record);
    if line.record.purge.is_loss() {
        shared.know_of_loss();
    }
    *mark = line.mark;
}

impl Appender {
    /// Appends a purge; where it is now. With a key that is known it was appended before.
    pub(super) async fn append(
        &self,
        shared: &Shared,
        purge: &Purge,
        once: Option<String>,
    ) -> Result<(Appended, Turn), Failure> {
        let known = shared.fences.fence().seq;
        let record = [spelled(random()), purge.write()];
        let keys = shared.keys.pair().into_iter().chain(once).collect();
        let entered = self.run(shared, known, String::new(), (keys, record)).await?;
        let answered = Instant::now();
        shared.learn(&entered.census, answered);
        let ttl = shared.fences.unsynced_ttl();
        let appended = Appended::new(entered.fence, answered, &entered.census, ttl);
        Ok((appended, entered.turn))
    }

    /// Sees to it that there is a log that may go on, and is not `doubted`.
    async fn renew(
        &self,
        shared: &Shared,
        doubted: Option<LogId>,
        known: u64,
    ) -> Result<(), Failure> {
        let doubted = doubted.map(|log| spelled(log.0)).unwrap_or_default();
        let nothing = [String::new(), String::new()];
        let _last = self.run(shared, known, doubted, (shared.keys.pair(), nothing)).await?;
        Ok(())
    }

    /// Signs this node off.
    pub(super) async fn leave(&self, shared: &Shared, node: NodeId) -> Result<(), Failure> {
        let call = (shared.keys.pair(), vec![node.to_string()]);
        let left = shared.run::<Value>(&self.client, &shared.scripts.leave, call, APPEND);
        within(APPEND, async { Ok(left.await?) }).await.map(drop)
    }

    async fn run(
        &self,
        shared: &Shared,
        known: u64,
        doubted: String,
        (keys, [nonce, record]): (Vec<String>, [String; 2]),
    ) -> Result<Entered, Failure> {
        let Retention { least, most, lifetime } = *shared.retention.lock();
        let arguments = vec![
            spelled(random()),
            known.to_string(),
            doubted,
            nonce,
            record,
            Purge::boundary().write(),
            shared.node.to_string(),
            REMEMBERED.to_string(),
            least.to_string(),
            most.to_string(),
            lifetime.as_millis().to_string(),
        ];
        let call = (keys, arguments);
        let answer = shared.run(&self.client, &shared.scripts.append, call, APPEND);
        let answer = within(APPEND, async { Ok(answer.await?) }).await?;
        answer::entered(&answer).ok_or(Failure::Answer)
    }
}

/// The answer, unless it takes longer than this: the client's own deadlines do not notice everything.
pub(super) async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(deadline, answer).await.unwrap_or(Err(Failure::Silent(deadline)))
}
