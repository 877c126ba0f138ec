//! A plugin that counts words, skips messages without words, and logs them.

use lantern_sdk::prelude::*;

lantern_sdk::export!(Words);

struct Words;

impl Plugin for Words {
    const SOURCES: Sources<Self> = &[Source::stream("texts", "TEXTS", &["text.>"], text)];
    const WRITES: Writes = &[Count::WRITE];
}

/// Word counts of texts.
#[derive(Table, Row)]
#[table(name = "word_counts")]
struct Count {
    #[column(time)]
    published: Timestamp,
    #[column(measure = "")]
    words: u32,
}

fn text(message: &Message<'_>, rows: &mut Rows<Words>) -> Result {
    let words = message.text()?.split_whitespace().count();
    if words == 0 {
        lantern_sdk::info!("message {} has no words", message.sequence);
        return Ok(());
    }
    let words = u32::try_from(words).map_err(Rejection::invalid)?;
    rows.put(Count {
        published: message.published,
        words,
    });
    Ok(())
}
