"""How any benchmark is run: registries, test loop, metric, hooks. Nothing about a model or a data set."""

default_scope = "mmseg"
custom_imports = dict(imports=["rfclip"], allow_failed_imports=False)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)  # tools/test.py takes gloo where there is no CUDA
log_level = "INFO"
log_processor = dict(by_epoch=False)
load_from = None  # weights come through model.clip.pretrained only
resume = False

test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="ExactIoUMetric", ignore_index=255)
model_wrapper_cfg = dict(type="FrozenDistributed")

visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),  # images between two lines of the log
    checkpoint=None,
    param_scheduler=None,
    sampler_seed=None,
)
custom_hooks = [dict(type="ProgressBarHook")]
