/** What a job author imports, and what the library's entry needs to wire it up. */
export { type BuiltinConnectors, installConnectors } from './builtin-connectors.ts';
export type {
  BroadcastState,
  CheckpointedFunction,
  FunctionInitializationContext,
  FunctionSnapshotContext,
  OperatorListState,
  OperatorStateStore,
} from './checkpointed-function.ts';
export { ConnectedStreams, KeyedConnectedStreams } from './connected-streams.ts';
export { CheckpointSettings } from './checkpoint-settings.ts';
export { DataStream, DataStreamSink, KeyedStream, SingleOutputStreamOperator } from './data-stream.ts';
export { type ExecutionConfig, type StateBackendOptions, StreamExecutionEnvironment } from './environment.ts';
export { type EnvironmentDefaults, installLocalExecutor, type LocalExecutor } from './execution-context.ts';
export type { NumericField, WithSum } from './field-types.ts';
export type {
  Collector,
  FilterFunction,
  FlatMapFunction,
  Key,
  KeySelector,
  MapFunction,
  ReduceFunction,
  RuntimeContext,
} from './functions.ts';
export type { JobClient, JobExecutionResult } from './job-client.ts';
export { type CheckpointingMode, DEFAULT_JOB_CONFIG, RestartStrategies } from './job-settings.ts';
export {
  KeyedCoProcessFunction,
  type KeyedContext,
  type KeyedRuntimeContext,
  KeyedProcessFunction,
  type OnTimerContext,
  OutputTag,
  type TimeDomain,
  type TimerService,
} from './process-function.ts';
export type {
  CommitContext,
  CommitRequest,
  Sink,
  SinkWriter,
  TwoPhaseCommitSink,
  TwoPhaseCommitWriter,
} from './sink.ts';
export type { PollStatus, Source, SourceReader } from './source.ts';
export {
  type AggregateFunction,
  type AggregatingState,
  AggregatingStateDescriptor,
  type KeyedStateStore,
  type ListState,
  ListStateDescriptor,
  type MapState,
  MapStateDescriptor,
  type ReducingState,
  ReducingStateDescriptor,
  type StateTtlConfig,
  type ValueState,
  ValueStateDescriptor,
  type ValueStateName,
} from './state.ts';
export {
  type CommitReason,
  isLeftover,
  type PreCommitted,
  TwoPhaseCommitSinkFunction,
  twoPhaseCommitSink,
} from './two-phase-commit.ts';
export { type TimestampAssigner, WatermarkStrategy } from './watermark-strategy.ts';
export { WindowedStream } from './windowed-stream.ts';
export { ProcessWindowFunction, type TimeWindow, TumblingEventTimeWindows, type WindowContext } from './windows.ts';
