/** Records between two looks at one: whether it is plain data, and how large it is. */
const LOOK_EVERY = 64;

/** What the producer's end of a line does. */
export interface DirectLineProducer {
  /** Sends what has gathered in a batch. True when nothing had, and records may come. */
  prepare(): boolean;
  /** So many records of about so many bytes in all have gone over the line. */
  sent(records: number, bytes: number): void;
  /** Where it says when the record in hand happened; undefined: nobody wants to know. */
  readonly element: { readonly timestampMs: number } | undefined;
}

/** What the consumer's end of a line does. */
export interface DirectLineConsumer {
  /** Takes a record; it never throws. Closes the line when no other may follow for now. */
  readonly receive: (record: unknown) => void;
  /** Records must be copies: the consumer may keep and change them. */
  readonly needsCopies: boolean;
  /** The slice in which records come ends then. */
  deadline(deadlineMs: number): void;
  received(records: number, bytes: number): void;
}

/**
 * The short way from a task to one that runs in the same thread: a call instead of a batch. Tasks stay
 * tasks, with barriers, watermarks, bounds and reports as ever; it only spares the queue while there is
 * nothing in it.
 *
 *   D1. It is open only while nothing is under way between the two: no open batch, no queued message, and
 *       nothing that the consumer has begun and not ended. So records never overtake anything.
 *   D2. Whatever enters the queue closes it. Only the consumer opens it, when it has nothing left to do.
 *   D3. What the consumer throws is the consumer's failure: the producer goes on with the queue.
 */
export class DirectLine {
  /** Records that may be given to `receive` without another look, each taking one. Zero while it is closed. */
  credit = 0;
  private granted = 0;
  private bytesEach = 0;
  private opened = false;
  private producer: DirectLineProducer | undefined;
  private consumer: DirectLineConsumer | undefined;
  /** A field, so that a chain's code calls the consumer's with no call in between. */
  receive: (record: unknown) => void = () => undefined;

  produce(producer: DirectLineProducer): void {
    this.producer = producer;
  }

  consume(consumer: DirectLineConsumer): void {
    this.consumer = consumer;
    this.receive = consumer.receive;
  }

  get isOpen(): boolean {
    return this.opened;
  }

  get needsCopies(): boolean {
    return this.consumer?.needsCopies !== false;
  }

  get element(): { readonly timestampMs: number } | undefined {
    return this.producer?.element;
  }

  /** By the consumer, when it has nothing left to do. D1 */
  offer(): void {
    if (this.opened || this.producer === undefined || this.consumer === undefined) return;
    this.opened = this.producer.prepare();
  }

  /** D2 */
  close(): void {
    if (!this.opened) return;
    this.settle();
    this.opened = false;
  }

  /** The producer has looked at a record and passes it. Those that follow it may go without, for a while. */
  grant(bytes: number): void {
    this.settle();
    this.bytesEach = bytes;
    this.granted = LOOK_EVERY;
    this.credit = LOOK_EVERY - 1;
  }

  /** Tells both ends what has gone over. */
  settle(): void {
    const records = this.granted - this.credit;
    if (records > 0) this.passed(records, records * this.bytesEach);
    this.granted = 0;
    this.credit = 0;
  }

  passed(records: number, bytes: number): void {
    this.producer?.sent(records, bytes);
    this.consumer?.received(records, bytes);
  }

  deadline(deadlineMs: number): void {
    if (this.opened) this.consumer?.deadline(deadlineMs);
  }
}
