# SPDX-License-Identifier: Apache-2.0
"""The policy node's parameters, topics and services: what declaration, validation, --help and docs come from."""

from __future__ import annotations

from functools import partial

from omnistream.engines.select import NUMBER_FORMATS
from omnistream.policy.settings import OUTPUTS
from omnistream_ros.parameters import Effect, ParameterSpec
from omnistream_ros.qos import QOS_NAMES, qos_problem
from omnistream_ros.run_log import RUN_LOG

_configure = partial(ParameterSpec, effect=Effect.CONFIGURE)
_seconds = partial(_configure, unit="s", minimum=0.001, maximum=60.0)


def _positive_problem(values: list[float]) -> str | None:
    if not values or any(not value > 0 for value in values):
        return f"is {list(values)}; expected numbers above 0: one, or one per arm dimension"
    return None


def _outputs_problem(names: list[str]) -> str | None:
    return None if len(set(names)) == len(names) else f"is {list(names)}; expected each once"


MODEL = (
    _configure(
        "policy",
        "",
        "Directory of the policy (omnistream-train policy), or 'default' for the one that comes with the package, of "
        "the simulated robot.",
    ),
    _configure(
        "weights",
        "default",
        "Checkpoint of the backbone that the policy was trained on, or 'default' for the weights that come with the "
        "package; used for source: images, unless the policy looks at pixels.",
    ),
    _configure("language_model", "", "Directory of the pre-trained language model, for a policy that uses one."),
    _configure(
        "contract",
        "",
        "The robot's contract (YAML or JSON). The node refuses a policy that means something else by a camera, state, "
        "unit, frame, rate or the sign of a gripper, and prints both sides. Empty: the policy's is believed.",
    ),
    _configure(
        "source",
        "images",
        "images: a stream of its own; features: those of a perception node, whose stream and cache it shares.",
        choices=("images", "features"),
    ),
    _configure("engine", "auto", "What runs the backbone; see the perception node."),
    _configure("device", "auto", "auto, cpu, cuda or cuda:N."),
    _configure("dtype", "float32", "Number format of the backbone's stream.", choices=NUMBER_FORMATS),
    _configure(
        "num_threads",
        1,
        "Threads of a step on a CPU; the control loop needs a core too. 0: all.",
        minimum=0,
        maximum=256,
    ),
)

INPUTS = (
    _configure("image_topic", "{camera}/image_raw", "Images; {camera} stands for the camera's name in the contract."),
    _configure("features_topic", "perception/{camera}/features", "FeatureMaps, for source: features."),
    _configure(
        "max_skew",
        0.05,
        "How much older than the first camera's picture another camera's, or a state, may be in one observation.",
        unit="s",
        minimum=0.0,
        maximum=10.0,
    ),
    _configure("state_topic", "joint_states", "JointState with the contract's state as positions, where it has one."),
    _configure("state_names", (), "Joints, in the order of the contract's state. Empty: its names."),
    _configure(
        "position_topic",
        "",
        "Where the arm is: PoseStamped of the tool in the action's frame, or JointState where the frame is joints. "
        "Needed for bounds, targets (pose, joint_trajectory) and absolute actions.",
    ),
)

OUTPUT = (
    _configure(
        "outputs",
        (),
        "What is published: twist, pose, joint_trajectory, action, gripper. Empty: what the contract's action says "
        "(joints: joint_trajectory, else twist; and gripper where it has one).",
        choices=OUTPUTS,
        check=_outputs_problem,
    ),
    _configure("dry_run", False, "Publish commands on ~/dry_run/... instead: everything but the robot."),
    _configure(
        "action_scale",
        (),
        "SI units per unit of the contract's action, one per arm dimension (0.02 where 1 means 0.02 m). Empty: 1; "
        'refused where the contract has units of "1".',
        item_type=float,
    ),
    _configure("command_frame", "", "frame_id of commands. Empty: the contract's frame."),
    _configure("joint_names", (), "Of joint_trajectory. Empty: the contract's names of the arm's dimensions."),
    _configure(
        "trajectory_velocities",
        True,
        "Two points with velocities, the second at rest: an arm that hears nothing more stops. False: one point, "
        "positions only, for controllers that interpolate between messages themselves.",
    ),
    _configure("qos.command", "command", f"{', '.join(QOS_NAMES)}, with :depth if wanted.", check=qos_problem),
    _configure("qos.input", "sensor:2", f"{', '.join(QOS_NAMES)}, with :depth if wanted.", check=qos_problem),
)

CONTROL = (
    _configure(
        "control_rate",
        0.0,
        "0: the contract's; another only for absolute or velocity actions.",
        unit="Hz",
        minimum=0.0,
        maximum=1000.0,
    ),
    _configure("blend", "fade", "How chunks that overlap become one action.", choices=("replace", "fade", "ensemble")),
    _configure("blend_steps", 3, "Control periods of a fade.", minimum=1, maximum=100),
    _configure(
        "execute", 1, "Actions of a chunk that are executed before the next is asked for.", minimum=1, maximum=1000
    ),
    _configure(
        "realtime_priority",
        1,
        "Of the control tick's thread (SCHED_FIFO): before all ordinary ones; refused without rtprio, which the log "
        "says. 0: an ordinary one.",
        minimum=0,
        maximum=99,
    ),
    _configure(
        "tick_phase",
        0.5,
        "Where control ticks are kept between pictures: so many periods after the stamps of those that are seen. "
        "Negative: wherever they fall.",
        unit="periods",
        minimum=-1.0,
        maximum=1.0,
    ),
)

SAFETY = (
    _configure(
        "velocity_limit",
        [0.1, 0.1, 0.1, 0.5, 0.5, 0.5],
        "Largest speed per arm dimension, m/s or rad/s; one number: for all.",
        check=_positive_problem,
    ),
    _configure(
        "acceleration_limit",
        [0.5, 0.5, 0.5, 2.5, 2.5, 2.5],
        "Per arm dimension, m/s^2 or rad/s^2; one number: for all. Stop commands are not slowed by it.",
        check=_positive_problem,
    ),
    _configure(
        "lower_bound", (), "Workspace box or joint limits per arm dimension; -1e9: none. Empty: none.", item_type=float
    ),
    _configure("upper_bound", (), "As lower_bound; 1e9: none.", item_type=float),
    _configure("start_jump", [0.05], "How far the first absolute target may be from the arm.", check=_positive_problem),
    _configure(
        "gripper_dwell", 0.3, "How long a gripper stays open or closed at least.", unit="s", minimum=0.0, maximum=10.0
    ),
    _configure("ramp", 1.0, "From standing to full speed after every start.", unit="s", minimum=0.0, maximum=60.0),
    _seconds("max_observation_age", 0.25, "Stop where the newest observation is older, by its stamp or its arrival."),
    _seconds("inference_deadline", 0.25, "Stop where an inference takes longer."),
    _seconds("max_tick_gap", 0.2, "Stop where the control loop stands still for longer, such as when /clock stops."),
    _configure(
        "frozen_after",
        30,
        "Stop where so many pictures in a row have the same bytes. 0: never, for simulators, whose pictures have no "
        "noise.",
        minimum=0,
        maximum=100000,
    ),
    _configure("max_failures", 5, "Observations in a row that fail before the node gives up.", minimum=1, maximum=1000),
)

HEALTH = (
    ParameterSpec("status_rate", 2.0, "Of ~/status.", unit="Hz", minimum=0.1, maximum=100.0, effect=Effect.START),
    ParameterSpec(
        "latency_budget",
        200.0,
        "From a picture's arrival to its chunk; diagnostics WARN above it.",
        unit="ms",
        minimum=0.1,
        maximum=60000.0,
    ),
    RUN_LOG,
)

NODE = (*MODEL, *INPUTS, *OUTPUT, *CONTROL, *SAFETY, *HEALTH)

TOPICS = (
    ("~/twist", "geometry_msgs/msg/TwistStamped", "Velocity of the tool in SI units (MoveIt Servo: speed_units)."),
    ("~/pose", "geometry_msgs/msg/PoseStamped", "Where the tool is to be at the end of the control period."),
    ("~/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", "For a joint_trajectory_controller."),
    ("~/action", "std_msgs/msg/Float64MultiArray", "The action in the contract's own units, after all limits."),
    (
        "~/<gripper>",
        "std_msgs/msg/Float64",
        "The contract's open or closed value, never between; named as its dimension.",
    ),
    (
        "~/chunk",
        "omnistream_msgs/msg/ActionChunk",
        "Each prediction, with the stamp and the ticks that it was used for.",
    ),
    ("~/status", "omnistream_msgs/msg/PolicyStatus", "Whether it moves, and if not why. Latched."),
    ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", "Permission, inputs, timing and clamps, 1 Hz."),
)

LISTENS = (
    ("~/estop", "std_msgs/msg/Bool", "True stops at once and latches; see ~/clear_estop. Any quality of service."),
    ("~/instruction", "std_msgs/msg/String", "As ~/set_instruction. Any quality of service."),
)

SERVICES = (
    ("~/set_instruction", "omnistream_msgs/srv/SetInstruction", "What to do from now on; planned actions are dropped."),
    ("~/start", "std_srvs/srv/Trigger", "Permits to move; the node starts without."),
    ("~/stop", "std_srvs/srv/Trigger", "Sends a stop command and takes the permission back."),
    ("~/reset", "std_srvs/srv/Trigger", "Forgets all frames and planned actions: a new episode begins. Stops."),
    ("~/estop", "std_srvs/srv/Trigger", "As the topic."),
    ("~/clear_estop", "std_srvs/srv/Trigger", "Unlatches the e-stop, unless its topic still says true; then ~/start."),
)

ACTIONS = (
    (
        "~/run_policy",
        "omnistream_msgs/action/RunPolicy",
        "~/set_instruction and ~/start for as long as the goal lasts, ~/stop at its end; the newest goal takes over.",
    ),
)
