from .loading import load_planned as load_planned
from .loading import load_weights as load_weights
from .sources import WeightPlan as WeightPlan
from .sources import plan_weights as plan_weights
