# SPDX-License-Identifier: Apache-2.0
"""What recording, training, simulation and node must agree on: cameras, rate, meaning of state and action.

contract = Contract(rate=10.0, cameras=(Camera("front", 224, 224),), state=..., action=...)
save_contract(path, contract); load_contract(path)
require_same(contract, other, names=("checkpoint", "robot"))       # ContractError prints both sides
"""

from omnistream.contract.compare import Difference, difference_table, differences, require_same
from omnistream.contract.contract import Action, Camera, Contract, Dimension, Gripper, Statistics
from omnistream.contract.file import contract_from_dict, contract_to_dict, load_contract, save_contract

__all__ = [
    "Action",
    "Camera",
    "Contract",
    "Difference",
    "Dimension",
    "Gripper",
    "Statistics",
    "contract_from_dict",
    "contract_to_dict",
    "difference_table",
    "differences",
    "load_contract",
    "require_same",
    "save_contract",
]
